"""What a file tells of a codebook's start, its weight decay and its expiring codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from releases import torch_since
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.core.evidence import CodeExpiry, Initialisation, Unavailable, WeightDecay
from vqdoctor.probes.file import code_expiry, initialisation, weight_decay


def named(layer):
    return {f"vq.{key}": value for key, value in layer.state_dict().items()}


def run(layer, steps, vectors):
    torch.manual_seed(0)
    mix = torch.randn(8, 8)
    for _ in range(steps):
        layer.train()(torch.randn(1, vectors, 8) @ mix)
    return layer


def gradient_model(optimizer, steps, **options):
    """An embedding of 32 codes, of which only the first four ever get a gradient."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(6, 6), "vq": torch.nn.Module()})
    model.vq.embedding = torch.nn.Embedding(32, 6)
    start = model.vq.embedding.weight.detach().clone()
    groups = [{"params": model.encoder.parameters(), "weight_decay": 0.0},
              {"params": model.vq.parameters(), "weight_decay": 0.1}]  # fmt: skip
    adam = optimizer(groups, lr=1e-2, **options)
    for _ in range(steps):
        adam.zero_grad()
        codes = model.vq.embedding(torch.arange(4))
        (model.encoder(torch.randn(4, 6)) - codes).square().mean().backward()
        adam.step()
    return {"model": model.state_dict(), "optimizer": adam.state_dict()}, start


@pytest.mark.parametrize("draw", [torch.randn, lambda k, d: (torch.rand(k, d) * 2 - 1) / k])
@pytest.mark.parametrize(("codes", "dim"), [(16, 4), (64, 32), (1024, 2), (256, 128)])
def test_a_random_start_has_no_structure(examine, ask, draw, codes, dim):
    torch.manual_seed(codes)
    found = ask(initialisation, examine({"vq.embedding.weight": draw(codes, dim)}))
    assert abs(found.structure) < 5
    assert (found.identical_rows, found.zero_rows, found.flag, found.counts_written) == (1, 0, None, None)


def test_structure_is_the_mean_square_correlation_against_chance(examine, ask):
    """An independent way: noise of the same shape says what chance gives."""
    rows = np.random.default_rng(0).standard_normal((200, 6)).astype(np.float32)
    rows[:, 1] = rows[:, 0] * 0.6 + rows[:, 1] * 0.8
    found = ask(initialisation, examine({"vq.embedding.weight": torch.from_numpy(rows)}))

    def total(points):
        return sum(np.corrcoef(points[:, i], points[:, j])[0, 1] ** 2 for i in range(6) for j in range(i))

    rng = np.random.default_rng(1)
    chance = [total(rng.standard_normal((200, 6))) for _ in range(400)]
    assert found.structure == pytest.approx((total(rows) - np.mean(chance)) / np.std(chance), rel=0.15)


def test_trained_codebooks_have_structure_and_untrained_ones_none(tiny, trained, examine, ask):
    model = tiny(decay=0.9)
    fresh = torch.optim.Adam(model.parameters())
    before = ask(initialisation, examine({"model": model.state_dict(), "optimizer": fresh.state_dict()}))
    adam = trained(model, 200)
    after = ask(initialisation, examine({"model": model.state_dict(), "optimizer": adam.state_dict()}))
    assert (before.stepped, before.counts_written) == (False, False) and before.structure < 6
    assert (after.stepped, after.counts_written) == (True, True) and after.structure > 6


def test_an_optimizer_that_keeps_no_state_does_not_tell(tiny, trained, examine, ask):
    model = tiny()
    sgd = trained(model, 3, optimizer=torch.optim.SGD)
    assert sgd.state_dict()["state"] == {}
    found = ask(initialisation, examine({"model": model.state_dict(), "optimizer": sgd.state_dict()}))
    assert found.stepped is None


def test_data_init_to_come_and_done(examine, ask):
    layer = VectorQuantize(dim=8, codebook_size=16, kmeans_init=True)
    before = ask(initialisation, examine(named(layer)))
    after = ask(initialisation, examine(named(run(layer, 5, 64))))
    assert (before.flag, before.identical_rows, before.zero_rows) == (False, 16, 16)
    assert isinstance(after, Initialisation) and after.flag is True and after.identical_rows == 1


@pytest.mark.parametrize(
    ("optimizer", "adaptive"),
    [
        (torch.optim.AdamW, False),
        (torch.optim.SGD, False),
        pytest.param(
            torch.optim.Adam, True, marks=torch_since("2.7", "decoupled_weight_decay in the state of Adam")
        ),
        (torch.optim.RMSprop, True),
    ],
)
def test_what_weight_decay_took_is_what_unused_codes_lost(examine, ask, optimizer, adaptive):
    whole, start = gradient_model(optimizer, 60)
    found = ask(weight_decay, examine(whole))
    assert isinstance(found, WeightDecay)
    assert (found.weight_decay, found.learning_rate, found.adaptive) == (0.1, 0.01, adaptive)
    end = whole["model"]["vq.embedding.weight"]
    lost = float((1 - end[4:].norm(dim=1) / start[4:].norm(dim=1)).mean())
    if optimizer is torch.optim.SGD:  # keeps no state, and so no steps
        assert found.lost is None
        found = ask(weight_decay, examine({**whole, "step": 60}))
    if adaptive:
        assert lost > 0.4 and found.lost == pytest.approx(lost, abs=0.15)
    else:
        assert found.lost == pytest.approx(lost, abs=1e-4)


def test_a_file_that_does_not_say_how_decay_works_gets_the_benefit_of_the_doubt(examine, ask):
    whole, _ = gradient_model(torch.optim.Adam, 60)
    for group in whole["optimizer"]["param_groups"]:
        group.pop("decoupled_weight_decay", None)  # as before torch 2.7
    assert ask(weight_decay, examine(whole)).adaptive is False


def test_a_codebook_without_a_gradient_decays_not_and_one_with_an_ema_neither(tiny, trained, examine, ask):
    whole, _ = gradient_model(torch.optim.Adam, 60)
    key = max(whole["optimizer"]["state"])
    del whole["optimizer"]["state"][key]
    assert ask(weight_decay, examine(whole)).lost == 0.0
    model = tiny()
    adam = trained(model, 20)
    gap = ask(weight_decay, examine({"model": model.state_dict(), "optimizer": adam.state_dict()}))
    assert isinstance(gap, Unavailable) and "EMA" in gap.reason


@pytest.mark.parametrize(("vectors", "low", "high"), [(32, 0.9, 1.0), (512, 0.0, 0.2)])
def test_a_revival_leaves_its_threshold_in_the_counts(examine, ask, vectors, low, high):
    """64 codes, threshold 2: half a vector a code, and eight."""
    layer = run(VectorQuantize(dim=8, codebook_size=64, threshold_ema_dead_code=2), 60, vectors)
    found = ask(code_expiry, examine(named(layer)))
    assert isinstance(found, CodeExpiry)
    assert found.threshold in ((2.0,) if low else (2.0, None))
    assert low <= (found.expired or 0.0) <= high


def test_dead_codes_and_start_values_are_no_threshold(tiny, trained, examine, ask):
    model = tiny(decay=0.99)
    trained(model, 30)
    counts = model.vq.ema_cluster_size
    assert (
        counts == counts.min()
    ).sum() > 1  # codes that were never chosen share the remainder of their start
    assert ask(code_expiry, examine(model.state_dict())).threshold is None
    layer = run(VectorQuantize(dim=8, codebook_size=256), 1, 16)
    layer._codebook.cluster_size[0, 200:] = 1.0
    assert ask(code_expiry, examine(named(layer))).threshold is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_counts_that_tie_in_half_precision_are_no_revival(examine, ask, dtype):
    layer = run(VectorQuantize(dim=8, codebook_size=256, decay=0.9), 60, 2048)
    names = named(layer)
    (counts,) = (name for name in names if name.endswith("cluster_size"))
    names[counts] = names[counts].to(dtype)
    assert len(names[counts].unique()) < 256
    assert ask(code_expiry, examine(names)).threshold is None


def test_counts_that_tie_after_one_update_are_no_revival(examine, ask):
    layer = run(VectorQuantize(dim=8, codebook_size=256, decay=0.95), 1, 512)
    assert ask(code_expiry, examine(named(layer))).threshold is None


def test_a_recorded_threshold_is_taken(tiny, trained, examine, ask):
    model = tiny(decay=0.9)
    trained(model, 60)
    config = {"model": model.state_dict(), "config": {"threshold_ema_dead_code": 2.5}}
    found = ask(code_expiry, examine(config))
    counts = model.vq.ema_cluster_size.numpy()
    assert found.threshold == 2.5
    assert found.expired == pytest.approx(np.mean(counts <= 2.5))
    assert found.vectors == pytest.approx(counts.sum(), rel=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "schedule", "reach"),
    [
        (torch.optim.Adam, 1.0, 0.6),
        (torch.optim.AdamW, 0.0, 0.6),  # a schedule that has ended at zero began at the whole rate
        (torch.optim.SGD, 1.0, None),  # its steps grow with the gradient
    ],
)
def test_how_far_a_code_can_have_gone(examine, ask, optimizer, schedule, reach):
    whole, _ = gradient_model(optimizer, 60)
    for group in whole["optimizer"]["param_groups"]:
        group["initial_lr"], group["lr"] = group["lr"], schedule * group["lr"]
    found = ask(weight_decay, examine(whole))
    assert found.reach == (None if reach is None else pytest.approx(reach))
