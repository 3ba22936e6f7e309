"""What the remedies do to one layer's arrays, where a file alone takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from vector_quantize_pytorch.vector_quantize_pytorch import Codebook

from vqdoctor.layouts.layer_arrays import LayerArrays
from vqdoctor.metrics.match import unit
from vqdoctor.remedies import all_remedies

REMEDIES = {remedy.name: remedy for remedy in all_remedies() if remedy.apply is not None}
CODES, DIM = 32, 6


def run(name: str, layer: LayerArrays) -> str:
    apply = REMEDIES[name].apply
    assert apply is not None
    return apply(layer)


def layer(**changes: Any) -> LayerArrays:
    """A layer with 8 codes in use, 24 dead ones far away, and statistics that agree with the codes."""
    rng = np.random.default_rng(3)
    codebook = rng.standard_normal((CODES, DIM)).astype(np.float32)
    codebook[8:] += 30
    counts = np.where(np.arange(CODES) < 8, 40.0, 1e-12).astype(np.float32)
    values: dict[str, Any] = {
        "name": "vq",
        "codebook": codebook,
        "counts": counts,
        "sums": codebook * counts[:, None],
        "known_usage": np.where(np.arange(CODES) < 8, 100.0, 0.0),
        "rng": np.random.default_rng(0),
    }
    made = LayerArrays(**{**values, **changes})
    if made.sums is not None and "sums" not in changes:
        made.sums = made.codebook * divisor(made)[:, None]
    return made


def divisor(made: LayerArrays) -> np.ndarray:
    """What the library divides the sums by, from its own step: sums of one become its reciprocal."""
    assert made.counts is not None
    return 1 / next_codes(np.ones((CODES, 1), np.float32), made.counts, made.smoothing or 0.0)[:, 0]


def vectors(number: int = 4000, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((number, dim)).astype(np.float32)


def next_codes(sums: np.ndarray, counts: np.ndarray, smoothing: float) -> np.ndarray:
    """The codes after the next EMA step of vector-quantize-pytorch, by its own code, without data."""
    codebook = Codebook(sums.shape[1], CODES, eps=smoothing)
    codebook.cluster_size.copy_(torch.from_numpy(counts))
    codebook.embed_avg.copy_(torch.from_numpy(sums))
    codebook.update_ema()
    return codebook.embed[0].numpy()


def agree(made: LayerArrays, rows: Any = slice(None)) -> None:
    """The library's next step must leave these codes where they are."""
    assert made.sums is not None and made.counts is not None
    after = next_codes(made.sums, made.counts, made.smoothing or 0.0)
    np.testing.assert_allclose(after[rows], made.codebook[rows], rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 1e-5, 0.5])
@pytest.mark.parametrize("z_e", [None, vectors()], ids=["blind", "z_e"])
def test_revival_moves_dead_codes_only_and_keeps_the_statistics_true(z_e: Any, smoothing: float) -> None:
    made = layer(z_e=z_e, smoothing=smoothing)
    before, total = made.codebook.copy(), float(made.counts.sum())
    assert run("revive-dead-codes", made) == ""
    assert made.moved.nonzero()[0].tolist() == list(range(8, CODES))
    np.testing.assert_array_equal(made.codebook[:8], before[:8])
    agree(made)
    assert len(np.unique(made.codebook, axis=0)) == CODES
    assert made.counts.sum() == pytest.approx(total, rel=0.05)  # shared, not made up
    assert made.estimated


def test_with_vectors_every_revived_code_is_alive_afterwards() -> None:
    made = layer(z_e=vectors())
    assert made.dead().sum() == CODES - 8
    run("revive-dead-codes", made)
    assert not made.dead()[8:].any()
    assert all((made.z_e == code).all(axis=1).any() for code in made.codebook[8:])


def test_without_vectors_the_most_used_code_gets_the_most_company() -> None:
    usage = np.zeros(CODES)
    usage[:8] = [800, 100, 100, 100, 100, 100, 100, 100]
    made = layer(known_usage=usage)
    home = made.codebook[:8].copy()
    run("revive-dead-codes", made)
    nearest = np.linalg.norm(made.codebook[8:, None] - home, axis=2).argmin(axis=1)
    guests = np.bincount(nearest, minlength=8)
    assert guests.sum() == CODES - 8 and guests[0] == guests.max() >= 3 * guests[1:].max()


def test_the_same_seed_gives_the_same_codes() -> None:
    first, second = layer(z_e=vectors()), layer(z_e=vectors())
    for made in (first, second):
        run("revive-dead-codes", made)
    np.testing.assert_array_equal(first.codebook, second.codebook)
    other = layer(z_e=vectors(), rng=np.random.default_rng(1))
    run("revive-dead-codes", other)
    assert (first.codebook != other.codebook).any()


@pytest.mark.parametrize("z_e", [None, vectors()], ids=["blind", "z_e"])
def test_codes_of_norm_one_stay_so(z_e: Any) -> None:
    codebook = unit(vectors(CODES))
    made = layer(codebook=codebook, z_e=z_e, by_angle=True, unit_rows=True)
    assert run("revive-dead-codes", made) == "" or z_e is not None
    np.testing.assert_allclose(np.linalg.norm(made.codebook, axis=1), 1, rtol=1e-5)
    agree(made)


def test_an_evenly_used_codebook_is_left_alone() -> None:
    made = layer(known_usage=np.full(CODES, 3.0))
    assert run("revive-dead-codes", made) == "no code is dead"
    assert not made.moved.any() and not made.recounted.any()


@pytest.mark.parametrize("usage", [None, np.zeros(CODES)], ids=["unknown", "nothing chosen"])
def test_nobody_guesses_which_codes_are_dead(usage: Any) -> None:
    assert "--data" in run("revive-dead-codes", layer(known_usage=usage))


def test_vectors_that_are_all_alike_give_no_place() -> None:
    alike = np.repeat(layer().codebook[:1], 500, axis=0)
    made = layer(z_e=alike)
    assert run("revive-dead-codes", made) == "no code has two different vectors to share"
    assert not made.moved.any()


def test_fewer_different_vectors_than_dead_codes() -> None:
    few = np.repeat(vectors(5), 100, axis=0)
    made = layer(z_e=few)
    run("revive-dead-codes", made)
    assert 0 < made.moved.sum() <= 5
    agree(made)


def test_a_gradient_trained_codebook_has_no_statistics() -> None:
    made = layer(counts=None, sums=None, z_e=vectors())
    assert run("revive-dead-codes", made) == ""
    assert made.counts is None and not made.estimated and not made.dead()[8:].any()


def test_reset_ema_moves_no_code_and_keeps_dead_ones_dead() -> None:
    made = layer()
    before = made.codebook.copy()
    made.sums[:4] *= 3
    assert run("reset-ema", made) == ""
    np.testing.assert_array_equal(made.codebook, before)
    agree(made)
    counts = made.counts.astype(float)
    assert (counts[8:] > 0.01 * counts.mean()).all()
    assert (counts < 0.1 * counts.mean()).sum() == CODES - 8
    assert not made.estimated
    assert run("reset-ema", made) == "counts and sums agree with the codes"


def test_reset_ema_of_a_layer_that_has_counted_nothing() -> None:
    made = layer(counts=np.zeros(CODES, np.float32), smoothing=1e-5, sums=np.zeros((CODES, DIM), np.float32))
    assert run("reset-ema", made) == ""
    assert set(made.counts.tolist()) == {1.0}
    agree(made)


def test_copies_are_spread_and_one_of_each_stays() -> None:
    codebook = vectors(CODES)
    codebook[20:] = codebook[3]
    made = layer(codebook=codebook.copy(), z_e=vectors())
    assert run("spread-duplicates", made) == ""
    assert made.moved.sum() == 12 and len(np.unique(made.codebook, axis=0)) == CODES
    assert (made.codebook == codebook[3]).all(axis=1).sum() == 1
    assert run("spread-duplicates", made) == "no two codes are equal"


def test_data_init_needs_enough_vectors_and_counts_them() -> None:
    made = layer(z_e=vectors(200))
    assert "too few" in run("data-init", made) and not made.moved.any()
    made = layer(z_e=vectors())
    assert run("data-init", made) == "" and made.moved.all()
    assert made.dead().sum() == 0
    agree(made)


@pytest.mark.parametrize("z_e", [None, vectors()], ids=["blind", "z_e"])
def test_broken_codes_and_statistics_are_replaced(z_e: Any) -> None:
    made = layer(z_e=z_e, known_usage=None)
    before = made.codebook.copy()
    made.codebook[2, 1] = np.nan
    made.sums[2] = np.inf
    made.counts[5] = np.nan
    assert run("restore-finite", made) == ""
    assert made.finite.all() and not made.broken_statistics().any()
    assert made.moved.nonzero()[0].tolist() == [2]
    np.testing.assert_array_equal(np.delete(made.codebook, 2, 0), np.delete(before, 2, 0))
    agree(made, [2, 5])


def test_a_codebook_without_one_finite_code_is_beyond_repair() -> None:
    made = layer(codebook=np.full((CODES, DIM), np.nan, np.float32))
    assert "earlier file" in run("restore-finite", made)
    assert not made.moved.any()


def test_codes_that_logits_choose_stay_where_they_are() -> None:
    assert "map of their own" in run("revive-dead-codes", layer(chosen_by_logits=True))
