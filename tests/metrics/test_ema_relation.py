"""The relation of codes to the means of their EMA, with each rule written out by hand."""

import numpy as np
import pytest

from vqdoctor.metrics.ema_relation import ema_relation, far_above_smoothing


@pytest.fixture
def statistics():
    """Counts [64] between 0.05 and 30, sums [64, 8] and their means."""
    rng = np.random.default_rng(0)
    counts = rng.uniform(0.05, 30.0, 64)
    means = rng.normal(size=(64, 8)) * rng.uniform(1.0, 5.0, (64, 1))
    return counts, means * counts[:, None], means


def relation(codes, counts, sums):
    found = ema_relation(*(np.asarray(array, dtype=np.float32) for array in (codes, counts, sums)))
    assert found is not None
    return found


@pytest.mark.parametrize("smoothing", [0.0, 1e-10, 1e-7, 1e-5])
def test_a_sound_rule_has_factor_one_whatever_its_smoothing(statistics, smoothing):
    counts, sums, _ = statistics
    smoothed = (counts + smoothing) * counts.sum() / (counts.sum() + 64 * smoothing)
    found = relation(sums / smoothed[:, None], counts, sums)
    assert found.scale == pytest.approx(1.0, abs=1e-3)
    assert found.scale_spread < 1e-3
    assert found.cosine == pytest.approx(1.0, abs=1e-6)
    assert abs(found.count_power) < 1e-3


def test_a_lost_total_is_one_factor(statistics):
    counts, sums, means = statistics
    found = relation(means * counts.sum(), counts, sums)
    assert found.scale == pytest.approx(counts.sum(), rel=1e-5)
    assert found.scale_spread < 1e-5


def test_sums_taken_for_codes_have_power_one(statistics):
    counts, sums, _ = statistics
    found = relation(sums, counts, sums)
    assert (found.count_power, found.sum_scale) == pytest.approx((1.0, 1.0), rel=1e-5)


@pytest.mark.parametrize(
    ("divisor", "expected"),
    [
        (lambda c, n: c, ("counts", 0.0)),
        (lambda c, n: 7.0 * c, ("counts", 0.0)),
        (lambda c, n: np.full(64, 0.3), ("constant", 0.0)),
        (lambda c, n: c.sum() / c, ("inverse", 0.0)),
        (lambda c, n: c + 1.0, ("added", 1.0)),
        (lambda c, n: n + 1.0, ("whole", 0.0)),
        (lambda c, n: n + 1.3, ("", 0.0)),
        (lambda c, n: c * np.linspace(0.5, 1.5, 64), ("", 0.0)),
    ],
)
def test_the_divisor_names_the_rule(statistics, divisor, expected):
    counts, sums, _ = statistics
    batch = np.random.default_rng(1).poisson(counts)
    found = relation(sums / divisor(counts, batch)[:, None], counts, sums)
    assert (found.divisor, pytest.approx(found.added, abs=1e-3)) == expected


def test_whole_divisors_of_few_codes_are_chance(statistics):
    counts, sums, _ = statistics
    for few, expected in ((3, ""), (4, "whole")):
        whole = np.arange(2.0, 2.0 + few)
        found = relation(sums[:few] / whole[:, None], counts[:few], sums[:few])
        assert found.divisor == expected


def test_codes_on_a_sphere_have_one_length(statistics):
    counts, sums, means = statistics
    lengths = np.linalg.norm(means, axis=1)
    found = relation(means / lengths[:, None], counts, sums)
    assert found.code_norm_spread < 1e-6
    assert found.scale_spread > 0.1
    assert found.mean_norm == pytest.approx(np.median(lengths), rel=1e-5)


def test_moved_codes_lose_the_direction(statistics):
    counts, sums, means = statistics
    means[:8] = means[:8, ::-1]
    assert relation(means, counts, sums).cosine < 0.9


def test_codes_whose_count_is_near_a_smoothing_are_left_out(statistics):
    counts, sums, means = statistics
    counts[:32] = 1e-6
    found = relation(means, counts, sums)
    np.testing.assert_array_equal(found.compared, np.arange(64) >= 32)
    np.testing.assert_array_equal(far_above_smoothing(np.float32(counts)), np.arange(64) >= 32)
    assert ema_relation(np.float32(means), np.full(64, 1e-6, np.float32), np.float32(sums)) is None


def test_broken_rows_are_left_out(statistics):
    counts, sums, means = statistics
    sums[3] = np.nan
    means[5] = 0.0
    assert not relation(means, counts, sums).compared[[3, 5]].any()
