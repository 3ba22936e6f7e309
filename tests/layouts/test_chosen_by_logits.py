"""Quantizers that choose a code by a map of their own, or keep their codes in groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts import find_quantizers

G, V, D, WIDTH = 3, 10, 4, 6


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class FairseqGumbel(nn.Module):
    """As in fairseq/modules/gumbel_vector_quantizer.py, without the sampling."""

    def __init__(self, combine_groups=False, depth=1):
        super().__init__()
        self.shared = combine_groups
        self.vars = nn.Parameter(torch.rand(1, V if combine_groups else G * V, D))
        last = nn.Linear(WIDTH, G * V)
        blocks = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(depth - 1)]
        self.weight_proj = nn.Sequential(*blocks, last) if depth > 1 else last

    def forward(self, x):
        codes = self.weight_proj(x).view(-1, G, V).argmax(-1)
        hot = nn.functional.one_hot(codes, V).float()
        table = self.vars.repeat(1, G, 1) if self.shared else self.vars
        return (hot.reshape(len(x), -1, 1) * table).view(len(x), G, V, -1).sum(2).flatten(1), codes


def gathered(views, codes):
    """Side by side, the row of each group that its code names; one view serves all groups it is shared by."""
    views = views if len(views) > 1 else views * codes.shape[1]
    return np.concatenate([view.codebook[codes[:, g]] for g, view in enumerate(views)], axis=1)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("behind", ["project_q", "project_inp"])
def test_fairseq_one_view_for_each_group(depth, behind, fake):
    vq = FairseqGumbel(depth=depth)
    state = {f"quantizer.{key}": value for key, value in vq.state_dict().items()}
    views = find_quantizers(fake(state | {f"{behind}.weight": (7, G * D)}, "model.")).views
    assert [v.name for v in views] == [f"quantizer[head {g}]" for g in range(G)]
    assert {(v.layout, v.lookup, v.confidence, v.num_codes, v.dim) for v in views} == {
        ("wav2vec2", "logits", Confidence.HIGH, V, D)
    }
    z_q, codes = vq(torch.randn(50, WIDTH))
    np.testing.assert_array_equal(gathered(views, codes), z_q.detach().numpy())


def test_fairseq_groups_that_share_one_table(fake):
    vq = FairseqGumbel(combine_groups=True)
    views = find_quantizers(fake(vq.state_dict(), "quantizer.")).views
    assert [(v.name, v.num_codes, v.confidence) for v in views] == [("quantizer", V, Confidence.HIGH)]
    z_q, codes = vq(torch.randn(50, WIDTH))
    np.testing.assert_array_equal(gathered(views, codes), z_q.detach().numpy())


@pytest.mark.parametrize("behind", [{}, {"project_q.weight": (7, D + 1)}, {"project_q.weight": (7, 4 * D)}])
def test_groups_that_nothing_tells_are_not_guessed(behind, fake):
    """No map behind the quantizer, one of another width, or one whose groups do not divide the rows."""
    vq = FairseqGumbel()
    state = {f"quantizer.{key}": value for key, value in vq.state_dict().items()}
    (view,) = find_quantizers(fake(state | behind)).views
    assert (view.name, view.num_codes, view.confidence) == ("quantizer", G * V, Confidence.LOW)
    np.testing.assert_array_equal(view.codebook, vq.vars[0].detach().numpy())


def test_vars_without_logits_are_none(fake):
    assert find_quantizers(fake({"quantizer.vars": (1, 30, 4)})).views == ()
    assert (
        find_quantizers(fake({"quantizer.vars": (1, 30, 4), "quantizer.weight_proj.weight": (31, 6)})).views
        == ()
    )


class FairseqKmeans(nn.Module):
    """As in fairseq/modules/kmeans_vector_quantizer.py."""

    def __init__(self, combine_groups):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(V, 1 if combine_groups else G, D))
        self.projection = nn.Sequential(
            nn.Conv1d(G * D, G * D, 1, groups=G, bias=False), nn.GroupNorm(G, G * D)
        )

    def forward(self, x):
        ze = self.projection(x).view(len(x), G, D, -1).permute(0, 3, 1, 2)
        table = self.embedding.expand(-1, G, -1)
        codes = (ze.unsqueeze(0) - table[:, None, None]).norm(dim=-1).argmin(0)
        return torch.stack([table[codes[..., g], g] for g in range(G)], dim=-2), codes


@pytest.mark.parametrize("combine_groups", [False, True])
def test_vq_wav2vec_has_codes_first_and_groups_second(combine_groups, fake):
    vq = FairseqKmeans(combine_groups)
    views = find_quantizers(fake(vq.state_dict(), "vector_quantizer.")).views
    names = ["vector_quantizer"] if combine_groups else [f"vector_quantizer[head {g}]" for g in range(G)]
    assert [v.name for v in views] == names
    assert {(v.layout, v.confidence, v.num_codes, v.dim) for v in views} == {
        ("vq-wav2vec", Confidence.HIGH, V, D)
    }
    z_q, codes = vq(torch.randn(2, G * D, 25))
    np.testing.assert_array_equal(
        gathered(views, codes.reshape(-1, G)), z_q.flatten(0, 1).flatten(1).detach().numpy()
    )


class GumbelQuantize(nn.Module):
    """As in dvq and taming-transformers, in eval mode."""

    def __init__(self, channels, codes, dim):
        super().__init__()
        self.proj = nn.Conv2d(channels, codes, 1)
        self.embed = nn.Embedding(codes, dim)

    def forward(self, z):
        codes = self.proj(z).argmax(1)
        return self.embed(codes), codes


@pytest.mark.parametrize("dim", [4, 12])
def test_gumbel_quantize(dim, fake):
    vq = GumbelQuantize(6, 12, dim)
    (view,) = find_quantizers(fake(vq.state_dict(), "quantize.")).views
    assert (view.name, view.layout, view.lookup) == ("quantize", "gumbel-quantize", "logits")
    z_q, codes = vq(torch.randn(2, 6, 5, 5))
    np.testing.assert_array_equal(view.codebook[codes.numpy()], z_q.detach().numpy())


def test_karpathys_other_quantizer_maps_its_input(fake):
    """Its `proj` has D outputs; where K = D only `data_initialized` tells the two apart."""
    shapes = {"proj.weight": (12, 6, 1, 1), "embed.weight": (12, 12), "data_initialized": (1,)}
    (view,) = find_quantizers(fake(shapes, "quantizer.")).views
    assert (view.name, view.layout, view.lookup) == ("quantizer", "path-guess", None)
