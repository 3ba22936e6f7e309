"""The library's own `.codebook` is the oracle for what a view shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vector_quantize_pytorch import GroupedResidualVQ, ResidualVQ, VectorQuantize

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts import find_quantizers


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def trained(module: torch.nn.Module) -> torch.nn.Module:
    """Let some batches through, so that codebook, counts and sums all differ from their start."""
    module.train()
    for _ in range(3):
        module(torch.randn(2, 40, 8))
    return module


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_cosine_sim": True},
        {"kmeans_init": True, "kmeans_iters": 2},
        {"learnable_codebook": True, "ema_update": False},
        {"heads": 2, "codebook_dim": 4},
        {"codebook_dim": 3},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_one_codebook(options, fake):
    vq = trained(VectorQuantize(dim=8, codebook_size=16, **options))
    (view,) = find_quantizers(fake(vq.state_dict())).views
    inner = vq._codebook
    assert (view.name, view.layout) == ("vq", "vector-quantize-pytorch")
    assert view.confidence is Confidence.HIGH
    np.testing.assert_array_equal(view.codebook, vq.codebook.detach().numpy())
    np.testing.assert_array_equal(view.counts, inner.cluster_size[0].numpy())
    np.testing.assert_array_equal(view.sums, inner.embed_avg[0].numpy())
    assert (view.num_codes, view.dim) == tuple(vq.codebook.shape)
    assert view.initted is True
    # The counts' start is what the installed release really starts from.
    fresh = VectorQuantize(dim=8, codebook_size=16, **options)
    assert set(fresh._codebook.cluster_size.flatten().tolist()) == {view.start_count}


def test_data_driven_initialisation_still_to_come(fake):
    vq = VectorQuantize(dim=8, codebook_size=16, kmeans_init=True)
    (view,) = find_quantizers(fake(vq.state_dict())).views
    assert view.initted is False


def test_ema_constants_reproduce_the_librarys_own_update(fake):
    """Codebook = sums / smoothed counts, with the smoothing that the view states."""
    vq = trained(VectorQuantize(dim=8, codebook_size=16, threshold_ema_dead_code=0))
    (view,) = find_quantizers(fake(vq.state_dict())).views
    total, k, eps = view.counts.sum(), view.num_codes, view.smoothing
    smoothed = (view.counts + eps) / (total + k * eps) * total
    np.testing.assert_allclose(view.sums / smoothed[:, None], view.codebook, rtol=1e-4, atol=1e-5)


def test_each_head_is_a_layer_of_its_own(fake):
    vq = trained(
        VectorQuantize(dim=8, codebook_size=16, heads=2, codebook_dim=4, separate_codebook_per_head=True)
    )
    views = find_quantizers(fake(vq.state_dict(), "net.vq.")).views
    assert [v.name for v in views] == ["vq[head 0]", "vq[head 1]"]
    for head, view in enumerate(views):
        np.testing.assert_array_equal(view.codebook, vq.codebook[head].numpy())
        np.testing.assert_array_equal(view.counts, vq._codebook.cluster_size[head].numpy())
        np.testing.assert_array_equal(view.sums, vq._codebook.embed_avg[head].numpy())
    assert not np.array_equal(views[0].codebook, views[1].codebook)


def test_residual_levels(fake):
    rvq = trained(ResidualVQ(dim=8, codebook_size=16, num_quantizers=3))
    views = find_quantizers(fake(rvq.state_dict())).views
    assert [v.name for v in views] == ["layers.0", "layers.1", "layers.2"]
    for view, level in zip(views, rvq.layers, strict=True):
        np.testing.assert_array_equal(view.codebook, level.codebook.numpy())


def test_a_shared_codebook_shows_under_every_level(fake):
    rvq = trained(ResidualVQ(dim=8, codebook_size=16, num_quantizers=2, shared_codebook=True))
    views = find_quantizers(fake(rvq.state_dict())).views
    assert [v.name for v in views] == ["layers.0", "layers.1"]
    for view in views:
        np.testing.assert_array_equal(view.codebook, rvq.layers[0].codebook.numpy())


def test_groups_of_residual_levels(fake):
    grouped = trained(GroupedResidualVQ(dim=8, codebook_size=16, num_quantizers=2, groups=2))
    views = find_quantizers(fake(grouped.state_dict())).views
    assert [v.name for v in views] == [f"rvqs.{g}.layers.{q}" for g in range(2) for q in range(2)]
    expected = [level.codebook.numpy() for rvq in grouped.rvqs for level in rvq.layers]
    for view, codebook in zip(views, expected, strict=True):
        np.testing.assert_array_equal(view.codebook, codebook)


def test_release_without_head_axis(fake):
    old = {
        "quantize._codebook.initted": np.array([1.0], dtype=np.float32),
        "quantize._codebook.cluster_size": (16,),
        "quantize._codebook.embed_avg": (16, 4),
        "quantize._codebook.embed": (16, 4),
    }
    (view,) = find_quantizers(fake(old)).views
    assert (view.name, view.num_codes, view.dim) == ("quantize", 16, 4)
    assert view.initted is True
    assert view.start_count is None, "releases with a float flag started from zero or from one"


def test_projections_beside_the_codebook_are_no_codebooks(fake):
    vq = VectorQuantize(dim=8, codebook_dim=3, codebook_size=16)
    assert "project_in.weight" in vq.state_dict()
    views = find_quantizers(fake(vq.state_dict(), "model.quantizer.vq.")).views
    assert [(v.name, v.dim) for v in views] == [("quantizer.vq", 3)]
