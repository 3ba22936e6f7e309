"""VQ310: codes and vectors on different scales; cosine codebooks are healthy."""

from pathlib import Path

import pytest
import torch
from judged import says
from torch.nn import functional
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from tests.first_model import first_model_file
from vqdoctor.core.evidence import EmaRelation, LookupScale
from vqdoctor.engine.examine import examine

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"


def codes_of(report):
    return {f.code for f in report.findings}


SPHERE = EmaRelation.healthy(scale=0.2, scale_spread=0.1, code_norm=1.0, code_norm_spread=5e-8, mean_norm=4.9)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "error"),
        ({"mean_norm": 1.11}, "error"),
        ({"mean_norm": 1.09}, "passes"),
        ({"mean_norm": 0.3}, "passes"),
        ({"code_norm_spread": 0.002}, "passes"),
        ({"cosine": 0.99}, "passes"),
        ({"sample_size": 1}, "passes"),
        ({"lookup": "euclidean"}, "error"),
        ({"lookup": "cosine"}, "passes"),
    ],
)
def test_limits(changes, expected):
    assert says("VQ310", SPHERE.replace(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "error"),
        ({"code_norm": 1.11}, "error"),
        ({"code_norm": 1.09}, "passes"),
        ({"vector_norm": 3.0}, "passes"),
        ({"vector_spread": 0.002}, "passes"),
    ],
)
def test_vectors_of_one_length_among_longer_codes(changes, expected):
    """A gradient-trained codebook has no EMA relation, and a sound relation does not speak against it."""
    scale = LookupScale.healthy(code_norm=2.6, vector_norm=1.0, vector_spread=2e-8, factor=0.34)
    assert says("VQ310", scale.replace(**changes)) == expected
    assert says("VQ310", scale.replace(**changes), EmaRelation.healthy()) == expected


def test_the_first_models_layer_b_is_named_first():
    report = examine(SAMPLES / "sphere-codes.pt")
    assert report.findings[0].code == "VQ310"
    assert report.verdict == "at-risk"
    assert not codes_of(report) & {"VQ101", "VQ303", "VQ309", "VQ505"}


def test_a_file_laid_out_as_theirs(tmp_path):
    torch.save(first_model_file(), tmp_path / "best.pt")
    report = examine(tmp_path / "best.pt")
    (finding,) = (f for f in report.findings if f.code == "VQ310")
    assert "have length 1, and the means of their vectors 4.9" in finding.message
    assert not codes_of(report) & {"VQ309", "VQ303", "VQ505"}


def cosine_layers():
    yield "lucidrains", VectorQuantize(dim=8, codebook_size=16, use_cosine_sim=True, decay=0.9)
    yield "k-means", VectorQuantize(dim=8, codebook_size=16, use_cosine_sim=True, kmeans_init=True, decay=0.9)
    yield "residual", ResidualVQ(dim=8, codebook_size=16, num_quantizers=2, use_cosine_sim=True, decay=0.9)


@pytest.mark.parametrize(
    ("name", "layer"), [*cosine_layers()], ids=lambda value: value if isinstance(value, str) else ""
)
def test_trained_cosine_codebooks_are_silent(tmp_path, name, layer):
    torch.manual_seed(0)
    centres = 5 * torch.randn(16, 8)
    for _ in range(60):
        layer(centres[torch.randint(16, (4, 64))] + torch.randn(4, 64, 8))
    torch.save({f"vq.{key}": tensor for key, tensor in layer.state_dict().items()}, tmp_path / "cosine.pt")
    assert not codes_of(examine(tmp_path / "cosine.pt")) & {"VQ309", "VQ310"}


@pytest.mark.parametrize("spread", [0.05, 1.0])
def test_a_home_made_cosine_codebook_that_normalises_its_vectors_is_silent(tmp_path, spread):
    torch.manual_seed(0)
    codes, counts = functional.normalize(torch.randn(32, 8), dim=1), torch.ones(32)
    sums, centres = codes.clone(), functional.normalize(torch.randn(32, 8), dim=1)
    for _ in range(100):
        z = functional.normalize(centres[torch.randint(32, (256,))] + spread * torch.randn(256, 8), dim=1)
        chosen = functional.one_hot((z @ codes.T).argmax(1), 32).float()
        counts, sums = 0.95 * counts + 0.05 * chosen.sum(0), 0.95 * sums + 0.05 * chosen.T @ z
        codes = functional.normalize(sums / (counts + 1e-5)[:, None], dim=1)
    saved = {"vq.embedding": codes, "vq.ema_cluster_size": counts, "vq.ema_embed_sum": sums}
    torch.save(saved, tmp_path / "cosine.pt")
    assert not codes_of(examine(tmp_path / "cosine.pt")) & {"VQ303", "VQ309", "VQ310", "VQ505"}
