"""Evidence for pictures alone: planes, gradients along the network, codes over positions, against oracles."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.nn import functional

from vqdoctor.core.codec import encode
from vqdoctor.core.evidence import GradientProfile, PositionUse, PrincipalPlane, Unavailable
from vqdoctor.core.evidence.shown import MOST_BINS, MOST_CODES, MOST_MODULES, MOST_POINTS
from vqdoctor.models.task import Losses
from vqdoctor.probes._plane import plane
from vqdoctor.probes._positions import position_use
from vqdoctor.probes.dump import DumpContext
from vqdoctor.probes.dump import position_use as positions_of_dump
from vqdoctor.probes.dump import principal_plane as plane_of_dump
from vqdoctor.probes.file import principal_plane as plane_of_file
from vqdoctor.probes.model import gradient_profile
from vqdoctor.probes.model import position_use as positions_of_model
from vqdoctor.probes.model import principal_plane as plane_of_model

_spec = importlib.util.spec_from_file_location("vq_libraries_shown", Path(__file__).with_name("libraries.py"))
assert _spec is not None and _spec.loader is not None
lib = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lib)

RNG = np.random.default_rng(0)
Z_E = (RNG.normal(size=(200, 12)) * np.linspace(3, 0.1, 12)).astype(np.float32)
CODES = (Z_E[:40] + 0.1 * RNG.normal(size=(40, 12)) + 0.5).astype(np.float32)


@pytest.mark.parametrize("rows", [200, 11])  # more rows than dimensions, and fewer
def test_the_plane_is_that_of_the_principal_components_of_both_alike(rows: int) -> None:
    vectors, codes = Z_E[:rows], CODES[: rows // 5]
    found = plane(codes, None, source="batch", vectors=vectors)
    oracle = PCA(2).fit(
        np.concatenate([np.repeat(codes, len(vectors), 0), np.repeat(vectors, len(codes), 0)])
    )
    for (x, y), points in (
        ((found.code_x, found.code_y), codes),
        ((found.vector_x, found.vector_y), vectors),
    ):
        expected = oracle.transform(points)
        signs = np.sign(np.sum(expected * np.stack([x, y], 1), axis=0))
        np.testing.assert_allclose(np.stack([x, y], 1) * signs, expected, atol=0.02)
    np.testing.assert_allclose((found.first, found.second), oracle.explained_variance_ratio_, rtol=1e-3)


def test_points_without_any_spread_lie_in_one_place() -> None:
    found = plane(np.ones((4, 3), np.float32), None, source="batch", vectors=np.ones((9, 3), np.float32))
    assert {*found.code_x, *found.code_y, *found.vector_x, *found.vector_y} == {0.0}
    assert (found.first, found.second) == (0.0, 0.0)


def test_a_huge_layer_is_bounded_and_drawn_by_the_seed() -> None:
    codes, vectors = RNG.normal(size=(4_000, 8)), RNG.normal(size=(20_000, 8))
    usage = np.arange(4_000)
    given = {"source": "batch", "vectors": vectors.astype(np.float32)}
    one, again, other = (plane(codes.astype(np.float32), usage, seed=s, **given) for s in (0, 0, 1))
    assert one == again != other
    assert len(one.code_x) == len(one.vector_x) == len(one.code_use) == MOST_POINTS
    assert (one.sample_size, one.vectors) == (4_000, 20_000)
    assert list(one.code_use) == sorted(one.code_use, reverse=True)
    assert one.code_use[-1] == 0 and one.code_use[0] == pytest.approx(
        2, rel=1e-3
    )  # the least and the most used
    wide = position_use(RNG.integers(0, 4_000, (50, 1_000)))
    assert len(wide.perplexity) == 63 <= MOST_BINS and len(wide.shares) == 63 * MOST_CODES
    of_file = one.replace(source="checkpoint", vector_x=(), vector_y=())
    layer = {"evidence": [encode(item) for item in (one, of_file, wide)]}
    assert len(json.dumps(layer, indent=2)) < 60_000


def test_a_file_has_its_codes_and_their_use_where_its_counts_tell(tiny, examine, ask) -> None:
    model = tiny()
    state = model.state_dict()
    assert ask(plane_of_file, examine({"model": state})).code_use == ()  # counts were never written
    counts = 1.0 + torch.arange(32)
    model.vq.ema_cluster_size.copy_(counts)
    model.vq.ema_embedding_sum.copy_(model.vq.embedding * counts[:, None])
    found = ask(plane_of_file, examine({"model": state, "config": {"decay": 0.5}, "step": 99}))
    assert isinstance(found, PrincipalPlane)
    assert (found.source, found.vectors, found.vector_x) == ("checkpoint", 0, ())
    assert sum(found.code_use) == pytest.approx(32, rel=1e-3)


def test_a_dump_has_both_and_the_use_by_its_indices(make_view, ask) -> None:
    chosen = np.arange(200) % 4
    given = DumpContext(views=(make_view(CODES),), arrays={"z_e": Z_E, "indices": chosen})
    found = ask(plane_of_dump, given)
    assert (found.vectors, len(found.vector_x)) == (200, 200)
    assert found.code_use[:5] == (10.0, 10.0, 10.0, 10.0, 0.0)


def test_codes_over_positions_by_hand(make_view, ask) -> None:
    indices = np.array([[7, 7, 1], [7, 2, -1], [7, 2, 1]])
    with_mask = DumpContext(views=(make_view(CODES),), arrays={"indices": indices})
    assert isinstance(ask(positions_of_dump, with_mask), Unavailable)  # samples of different lengths
    found = position_use(indices)
    assert isinstance(found, PositionUse)
    assert (found.codes, found.positions, found.sample_size, found.bin_size) == ((7, 1, 2), 3, 8, 1)
    assert found.shares == (1.0, 0.0, 0.0, 0.3333, 0.0, 0.6667, 0.0, 1.0, 0.0)
    assert found.perplexity == pytest.approx((1.0, 1.89, 1.0), abs=1e-3)


def test_of_a_dump_with_samples_and_one_without(make_view, ask) -> None:
    indices = RNG.integers(0, 40, (30, 2, 3))
    found = ask(positions_of_dump, DumpContext(views=(make_view(CODES),), arrays={"indices": indices}))
    place = found.codes[0]
    assert found.shares[:: len(found.codes)] == pytest.approx(
        [(indices.reshape(30, 6)[:, i] == place).mean() for i in range(6)], abs=1e-3
    )
    flat = DumpContext(views=(make_view(CODES),), arrays={"z_e": Z_E})
    assert "position" in ask(positions_of_dump, flat).reason


def test_of_a_model_with_the_grid_of_its_image(ask) -> None:
    torch.manual_seed(0)
    model = lib.Classifier(lib.PlainVQ(channel_first=True), shape="bdhw")
    context = lib.context(model)
    found = ask(positions_of_model, context)
    assert (found.positions, found.grid) == (6, (2, 3))
    codes = np.concatenate([context.codes(split)["vq"] for split in ("train", "val")])
    assert found == position_use(codes, (2, 3)).replace(layer="vq")
    shown = ask(plane_of_model, context)
    assert (shown.sample_size, shown.vectors) == (lib.CODES, 2 * 64 * 6)


class HeadFirst(nn.Module):
    """Registers its head before the rest, which runs before it."""

    def __init__(self, vq: nn.Module) -> None:
        super().__init__()
        self.head, self.vq, self.encoder = nn.Linear(lib.DIM, 4), vq, nn.Linear(3, lib.DIM)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        z_q, loss = lib.first_and_losses(self.vq, self.encoder(x))
        return self.head(z_q.mean(1)), loss


def profile(model: nn.Module, task: Any = None) -> GradientProfile:
    (found,) = gradient_profile.PROBE.measure(lib.context(model, task))
    assert isinstance(found, GradientProfile), found
    return found


def test_the_gradient_of_the_task_stops_at_a_layer_without_an_estimator() -> None:
    torch.manual_seed(0)
    for estimator, reaches in (("ste", True), ("none", False)):
        model = HeadFirst(lib.PlainVQ(estimator))
        found = profile(model)
        assert found.modules == ("encoder", "vq", "head") and found.is_vq == (False, True, False)
        assert bool(found.task[0]) == reaches and found.task[2] > 0
        assert found.vq[0] > 0 and found.vq[2] == 0
        if reaches:  # by hand
            task = lib.ToyTask(model)
            losses: Losses = task.losses(model.train(), next(iter(task.batches("train"))))
            for loss, measured, factor in (
                (losses.task, found.task, 1),
                (losses.vq, found.vq, task.vq_weight),
            ):
                grads = torch.autograd.grad(loss, [*model.encoder.parameters()], retain_graph=True)
                rms = torch.cat([g.flatten() for g in grads]).square().mean().sqrt()
                assert measured[0] == pytest.approx(factor * float(rms), rel=1e-3)


def test_the_modules_of_a_deep_network_are_put_together() -> None:
    torch.manual_seed(0)
    model = HeadFirst(lib.PlainVQ())
    deep = [nn.Sequential(nn.Linear(lib.DIM, lib.DIM), nn.Linear(lib.DIM, lib.DIM)) for _ in range(60)]
    model.encoder = nn.Sequential(nn.Linear(3, lib.DIM), *deep)
    found = profile(model)
    assert 60 < len(found.modules) <= MOST_MODULES and found.modules[1] == "encoder.1"
    assert found.modules[-2:] == ("vq", "head")


class NoGradient(lib.ToyTask):
    """A task whose loss has no gradient at all."""

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        logits, _ = model(batch[0])
        return Losses(task=functional.cross_entropy(logits.detach(), batch[1]), vq=None)


def test_a_loss_without_a_gradient_is_no_profile() -> None:
    model = HeadFirst(lib.PlainVQ())
    (found,) = gradient_profile.PROBE.measure(lib.context(model, NoGradient(model)))
    assert isinstance(found, Unavailable) and "no gradient" in found.reason
