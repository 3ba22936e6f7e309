"""Local folders of transformers and diffusers, without a network and without foreign code."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.core.errors import UserError
from vqdoctor.models import hf


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def folder(path: Path, config: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def diffusers_model(path: Path) -> Any:
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.VQModel(
        block_out_channels=(8,), norm_num_groups=4, latent_channels=4, num_vq_embeddings=16
    )
    model.save_pretrained(path)
    return model


def transformers_model(path: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.DacConfig(
        encoder_hidden_size=4, downsampling_ratios=[2], upsampling_ratios=[2], decoder_hidden_size=8,
        n_codebooks=2, codebook_size=16, codebook_dim=4,
    )  # fmt: skip
    model = transformers.DacModel(config)
    model.save_pretrained(path)
    return model


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("make", [diffusers_model, transformers_model])
def test_a_saved_model_comes_back_bit_equal(make: Any, tmp_path: Path) -> None:
    original = make(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    for path in (tmp_path, checkpoint.path):
        model, loaded = hf.load(path, checkpoint.tensors)
        assert type(model) is type(original)
        assert (loaded.missing, loaded.unexpected) == ((), ())
        own = model.state_dict()
        assert all(torch.equal(own[name], tensor) for name, tensor in original.state_dict().items())


@pytest.mark.filterwarnings("default")
def test_weights_that_are_missing_are_named_and_wrong_shapes_are_refused(tmp_path: Path) -> None:
    transformers_model(tmp_path)
    tensors = dict(open_checkpoint(tmp_path).tensors)
    key = "quantizer.quantizers.0.codebook.weight"
    codebook = tensors.pop(key)
    assert key in hf.load(tmp_path, tensors)[1].missing
    with pytest.raises(UserError, match=r"\[16, 4\]"):
        hf.load(tmp_path, {**tensors, key: tensors["encoder.conv1.weight"]})
    extra = {**tensors, key: codebook, "what.is.this": codebook}
    assert hf.load(tmp_path, extra)[1].unexpected == ("what.is.this",)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"architectures": ["MyOwnModel"], "auto_map": {"AutoModel": "evil.MyOwnModel"}},
            "not a model of transformers",
        ),
        ({"architectures": ["__loader__"]}, "not a model of transformers"),
        ({"architectures": ["DacConfig"]}, "not a model of transformers"),
        ({"architectures": ["utils.logging"]}, "not a model of transformers"),
        ({"_class_name": "DDPMScheduler"}, "not a model of diffusers"),
        ({"model_type": "dac"}, "names no model class"),
        ("[1, 2]", "holds no settings"),
        ("{not json", "not readable as JSON"),
        ("[" * 200_000, "not readable as JSON"),
    ],
)
def test_a_config_can_name_nothing_but_the_packages_own_models(
    config: Any, says: str, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("diffusers")
    place = folder(tmp_path / "model", config)
    (place / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UserError, match=says):
        hf.load(place, {})


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        hf.load(tmp_path, {})


@pytest.mark.parametrize(
    ("config", "package"),
    [({"architectures": ["DacModel"]}, "transformers"), ({"_class_name": "VQModel"}, "diffusers")],
)
def test_a_missing_package_is_one_line_with_the_command(
    config: Any, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"needs {package} .*not installed here: pip install {package}$"):
        hf.load(folder(tmp_path / "model", config), {})
