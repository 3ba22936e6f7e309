import numpy as np
import pytest

from vqdoctor.metrics.interval import paired_interval


def test_equal_models_differ_by_nothing_and_the_interval_is_not_empty():
    low, high = paired_interval(0, 0, 100)
    assert low == -high < 0


def test_the_two_models_are_exchangeable():
    assert paired_interval(3, 11, 90) == pytest.approx([-end for end in reversed(paired_interval(11, 3, 90))])


@pytest.mark.parametrize("samples", [60, 335, 2000])
@pytest.mark.parametrize(("gained", "lost"), [(0.01, 0.01), (0.05, 0.07), (0.10, 0.02)])
def test_the_truth_lies_within_the_interval_19_times_in_20(samples, gained, lost):
    draws = np.random.default_rng(0).multinomial(samples, [gained, lost, 1 - gained - lost], size=4000)
    ends = np.array([paired_interval(int(a), int(b), samples) for a, b, _ in draws])
    held = np.mean((ends[:, 0] <= gained - lost) & (gained - lost <= ends[:, 1]))
    assert held >= 0.94


def test_it_is_narrower_than_the_interval_of_a_bootstrap_that_forgets_the_pairs():
    """Models that mostly agree are compared more sharply than two groups of samples would be."""
    right = np.arange(400) < 320
    without = right.copy()
    without[[1, 2, 350]] = ~without[[1, 2, 350]]
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 400, (2000, 400))
    apart = right[pairs].mean(1) - without[rng.permuted(pairs, axis=0)].mean(1)
    together = (right[pairs].astype(float) - without[pairs]).mean(1)
    low, high = paired_interval(2, 1, 400)
    assert (high - low) < 0.5 * np.subtract(*np.quantile(apart, [0.975, 0.025]))
    assert (high - low) == pytest.approx(np.subtract(*np.quantile(together, [0.975, 0.025])), rel=0.2)
