import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from vqdoctor.metrics.information import (
    conditional_entropy_bits,
    entropy_bits,
    held_out_accuracy,
    mutual_information,
)


def coded(strength, codes, samples, rng):
    """Labels of ten classes, and codes that depend on them with probability `strength`."""
    labels = rng.integers(0, 10, samples)
    own = rng.integers(0, codes // 10, samples) * 10 + labels
    return np.where(rng.random(samples) < strength, own, rng.integers(0, codes // 10 * 10, samples)), labels


@pytest.mark.parametrize("codes", [60, 250, 1000])
@pytest.mark.parametrize("strength", [0.0, 0.2, 0.5, 0.9])
def test_small_samples_come_near_to_the_truth_that_the_plain_estimate_misses(codes, strength):
    rng = np.random.default_rng(0)
    large, truth_labels = coded(strength, codes, 400_000, rng)
    truth = mutual_info_score(truth_labels, large) / np.log(2)
    small, labels = coded(strength, codes, 1797, rng)
    plain = mutual_info_score(labels, small) / np.log(2)
    found = mutual_information(small, labels)
    assert found == pytest.approx(truth, abs=0.25)
    assert abs(found - truth) < abs(plain - truth)


def test_positions_are_averaged():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 4000)
    table = np.stack([labels, rng.integers(0, 4, 4000)], axis=1)
    assert mutual_information(table, labels) == pytest.approx(1.0, abs=0.02)
    assert conditional_entropy_bits(table) == pytest.approx(2.0, abs=0.01)
    assert held_out_accuracy(table, labels) == pytest.approx((1 + 0.25) / 2, abs=0.02)


def test_entropy_of_even_labels():
    assert entropy_bits(np.arange(8000) % 8) == pytest.approx(3, abs=1e-3)


def test_held_out_accuracy_is_not_fooled_by_rare_codes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 1000)
    unique = np.arange(1000)  # each code once: fitted and judged on the same samples, always right
    assert held_out_accuracy(unique, labels) < 0.2


def test_the_same_code_may_mean_something_else_elsewhere():
    labels = np.arange(400) % 2
    table = np.stack([labels, 1 - labels], axis=1)
    assert held_out_accuracy(table, labels) == 1.0


def test_one_label_has_nothing_to_tell():
    assert mutual_information(np.arange(10), np.zeros(10, int)) == 0.0
