"""The code of advice names the user's own layer, attributes and library."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import nsvq
import pytest
import torch
from diffusers.models.autoencoders.vae import VectorQuantizer
from torch import nn
from transformers import DacConfig, Wav2Vec2Config
from vector_quantize_pytorch import SimVQ, VectorQuantize

from vqdoctor.checks import all_checks
from vqdoctor.core.report import LayerSummary
from vqdoctor.engine.wording import in_their_words
from vqdoctor.layouts import find_quantizers
from vqdoctor.layouts.attributes import attributes
from vqdoctor.layouts.families import all_layouts
from vqdoctor.layouts.layout import ARGUMENTS, Layout
from vqdoctor.reference.quantizer import VectorQuantizerEMA2D
from vqdoctor.remedies import with_advice

ADVICE = {remedy.name: remedy for remedy in with_advice(all_checks())}
LAYOUTS = {layout.name: layout for layout in all_layouts()}
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


class Stored:
    """A tensor as a layout sees it."""

    def __init__(self, values: torch.Tensor) -> None:
        self.shape, self.dtype, self.read = tuple(values.shape), str(values.dtype)[6:], values.numpy


def summaries(state: Mapping[str, torch.Tensor]) -> list[LayerSummary]:
    """Return the layers of a state dict as a report has them."""
    views = find_quantizers({key: Stored(values) for key, values in state.items()}).views
    return [
        LayerSummary(
            name=view.name,
            layout=view.layout,
            layout_confidence="high",
            num_codes=view.num_codes,
            dim=view.dim,
            attributes=attributes(view),
        )
        for view in views
    ]


def shown(name: str, state: Mapping[str, torch.Tensor]) -> str:
    return in_their_words(ADVICE[name], summaries(state))


def of_example(layout: Layout) -> list[LayerSummary]:
    return summaries({key: torch.zeros(shape) for key, shape in layout.example.items()})


@pytest.mark.parametrize(
    ("layout", "make"),
    [
        ("vector-quantize-pytorch", VectorQuantize),
        ("simvq", SimVQ),
        ("nsvq", nsvq.NSVQ),
        ("reference", VectorQuantizerEMA2D),
        ("embedding", VectorQuantizer),
        ("wav2vec2", Wav2Vec2Config),
        ("dac", DacConfig),
    ],
)
def test_the_library_has_the_class_and_its_arguments(layout: str, make: Callable[..., object]) -> None:
    words = LAYOUTS[layout].words
    assert make.__name__ == words.layer
    arguments = [text.split("=")[0] for told in words.arguments.values() for text in told.split(", ")]
    assert arguments
    assert [name for name in arguments if name not in inspect.signature(make).parameters] == []


def test_a_lucidrains_user_sets_arguments() -> None:
    one, stack = ({f"{path}._codebook.{name}": torch.zeros(shape) for name, shape in {
        "initted": (), "cluster_size": (1, 8), "embed_avg": (1, 8, 4), "embed": (1, 8, 4)}.items()}
        for path in ("vq", "rvq.layers.0"))  # fmt: skip
    assert shown("faster-ema", one) == "VectorQuantize(..., decay=0.95)"
    assert shown("data-init", one) == "VectorQuantize(..., kmeans_init=True, kmeans_iters=10)"
    assert shown("lower-vq-weight", stack) == "ResidualVQ(..., commitment_weight=0.1)"
    assert shown("rotation-trick", stack) == "ResidualVQ(..., rotation_trick=True)"
    assert shown("revive-dead-codes", stack) == (
        "ResidualVQ(..., threshold_ema_dead_code=0.1 * vectors_per_batch / num_codes)"
    )
    assert shown("revive-dead-codes", one) == (
        "threshold_ema_dead_code = 0.1 * vectors_per_batch / num_codes\n"
        "VectorQuantize(..., threshold_ema_dead_code=threshold_ema_dead_code)"
    )


def test_the_codes_of_an_embedding_are_written_to_its_weight() -> None:
    model = nn.Module()
    model.quantize = VectorQuantizer(6, 3, beta=0.25, legacy=False)
    code = shown("data-init", model.state_dict())
    assert "model.quantize.embedding.weight.data.copy_(codes)" in code
    assert "counts" not in code and "sums" not in code
    codes = torch.randn(6, 3)
    exec(code, {"model": model, "kmeans": lambda *_: (codes, None), "z_e": None, "num_codes": 6})
    assert torch.equal(model.quantize.embedding.weight, codes)
    assert shown("swap-loss-terms", model.state_dict()).endswith(
        "\n# taming, diffusers: VectorQuantizer(..., legacy=False)"
    )


def test_the_lines_for_a_codebook_in_training_keep_its_gradient() -> None:
    model = nn.Module()
    model.quantize = VectorQuantizer(6, 3, beta=0.25, legacy=False)
    code = shown("train-codebook", model.state_dict())
    scope: dict[str, Any] = {
        "model": model, "indices": torch.tensor([1, 2]), "z_e": torch.randn(2, 3), "F": nn.functional,
    }  # fmt: skip
    exec(code, scope)
    scope["vq"].backward()
    assert model.quantize.embedding.weight.grad.abs().sum() > 0
    exec(shown("exempt-codebook", model.state_dict()), {"model": model, "torch": torch})


@pytest.mark.parametrize(
    ("heads", "columns"), [(1, False), (2, False), (0, True)], ids=["H of one", "two heads", "columns"]
)
def test_the_lines_write_what_the_library_stores(heads: int, columns: bool) -> None:
    """After them the codes are where they belong, and the next EMA update does not undo them."""
    head = (heads,) if heads else ()
    inner = nn.Module()
    shape = (*head, 4, 9) if columns else (*head, 9, 4)
    inner.register_buffer("initted", torch.tensor(True)) if heads else None
    inner.register_buffer("cluster_size", torch.rand(*head, 9) + 1)
    inner.register_buffer("embed", torch.randn(shape))
    inner.register_buffer("embed_avg", torch.randn(shape))
    model = nn.Module()
    model.vq = nn.Module()
    model.vq._codebook = inner
    if columns:
        model.vq = inner
    layers = summaries(model.state_dict())
    assert {layer.layout for layer in layers} == {"rosinality" if columns else "vector-quantize-pytorch"}
    for layer in layers:
        exec(in_their_words(ADVICE["reset-ema"], [layer]), {"model": model})
    size = inner.cluster_size
    expected = inner.embed * size if columns else inner.embed * size[..., None]
    torch.testing.assert_close(inner.embed_avg, expected)


@each_layout
def test_every_advice_is_python_in_every_layout(layout: Layout) -> None:
    layers = of_example(layout)
    for advice in ADVICE.values():
        code = in_their_words(advice, layers)
        compile(code, f"{layout.name} {advice.name}", "exec")
        assert max(map(len, code.splitlines())) <= 88, code
        assert "counts" not in layers[0].attributes or "\nsums[" not in code or "sums = model." in code


@each_layout
def test_vocabularies_use_the_terms_that_settings_use(layout: Layout) -> None:
    assert set(layout.words.arguments) <= set(ARGUMENTS)
    assert bool(layout.words.arguments) == bool(layout.words.layer)


def test_every_term_is_asked_for() -> None:
    assert {advice.setting[0] for advice in ADVICE.values() if advice.setting} == {*ARGUMENTS}


def test_without_a_layer_the_code_is_in_the_fields_names() -> None:
    assert all(in_their_words(advice, []) == advice.code for advice in ADVICE.values())


def test_more_layers_are_told() -> None:
    state = {f"quantizers.{level}.embedding.weight": torch.zeros(8, 4) for level in range(3)}
    assert shown("data-init", state).endswith("\n# and the same on the other 2 layers")


@pytest.mark.parametrize("path", ["vq.a b", "vq.import", "vq.x;print(1)", "vq.é"])
def test_a_name_that_no_attribute_can_have_is_never_written_as_code(path: str) -> None:
    state = {f"{path}.codebook": torch.zeros(8, 4)}
    assert [layer.attributes for layer in summaries(state)] in ([], [{}])
