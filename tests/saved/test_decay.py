"""The decay that a file does not record, by what an EMA leaves of its start."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from vqdoctor.saved.decay import proven_decay

UPDATES: dict[Callable[[torch.Tensor, float], object], str] = {
    lambda c, d: c.mul_(d).add_(0 * c, alpha=1 - d): "mul and add",
    lambda c, d: c.lerp_(torch.zeros_like(c), 1 - d): "lerp",
    lambda c, d: c.copy_(d * c + (1 - d) * 0 * c): "written out",
    lambda c, d: c.sub_((1 - d) * (c - 0)): "difference",
}


def left(update: Callable[[torch.Tensor, float], object], decay: float, updates: int) -> np.ndarray:
    """Return the counts of codes that were never chosen, among two that were."""
    counts = torch.ones(6)
    for _ in range(updates):
        update(counts, decay)
    return torch.cat([counts, counts[:2] + torch.tensor([0.3, 12.0])]).numpy()


@pytest.mark.parametrize("update", UPDATES, ids=UPDATES.values())
@pytest.mark.parametrize(
    ("decay", "updates"), [(0.99999, 920), (0.9999, 2_000), (0.999, 1_500), (0.99, 200), (0.95, 40)]
)
def test_the_last_bits_of_a_count_tell_the_decay(update, decay, updates):
    counts = left(update, decay, updates)
    for recorded in (updates - 1, updates, updates + 2):
        assert proven_decay(counts, recorded) == decay
    assert proven_decay(counts, updates + 9) is None
    assert proven_decay(np.nextafter(counts, np.float32(0)) * np.float32(0.999), updates) is None


def test_a_count_that_a_revival_has_set_is_no_start():
    counts = [
        left(lambda c, d: c.mul_(d), d, age) for d in (0.9, 0.98, 0.99, 0.999) for age in range(1, 300, 7)
    ]
    assert {proven_decay(c, t) for c in counts for t in (400, 920, 5_000)} == {None}


def test_any_count_is_hardly_ever_one_by_chance():
    rng = np.random.default_rng(0)
    floors = rng.uniform(0.05, 1, 500).astype(np.float32)
    for floor in floors:
        assert proven_decay(np.array([floor, 2.0], np.float32), int(rng.integers(20, 3_000))) is None


@pytest.mark.parametrize("updates", [None, 0, 5, 10**9])
def test_without_a_number_of_updates_nothing_is_computed(updates):
    assert proven_decay(np.full(4, 0.99, np.float32), updates) is None


@pytest.mark.parametrize("count", [np.nan, np.inf, -1.0, 0.0, 1.0])
def test_counts_that_are_at_no_rest_of_a_start(count):
    assert proven_decay(np.array([count, 3.0], np.float32), 900) is None
