import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from vqdoctor.metrics.calibration import (
    accuracy,
    balanced_skill,
    calibration_difference,
    calibration_interval,
    chance_accuracy,
    expected_calibration_error,
    softmax,
)
from vqdoctor.metrics.interval import share_interval


def naive_ece(probabilities, labels):
    total = 0.0
    for i in range(15):
        rows = [
            (max(p), float(np.argmax(p) == y))
            for p, y in zip(probabilities, labels, strict=True)
            if i / 15 < max(p) <= (i + 1) / 15
        ]
        if rows:
            confidence, right = np.mean(rows, axis=0)
            total += len(rows) / len(labels) * abs(right - confidence)
    return total


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 6))
def test_agrees_with_naive_loops_and_sklearn(seed, rows, classes):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.4), size=rows)
    labels = rng.integers(0, classes, rows)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(
        naive_ece(probabilities, labels)
    )
    assert accuracy(probabilities, labels) == accuracy_score(labels, probabilities.argmax(1))


def test_softmax_is_scipys():
    logits = np.random.default_rng(0).normal(0, 30, (20, 7))
    np.testing.assert_allclose(softmax(logits), special.softmax(logits, axis=1), rtol=1e-12)


def test_a_calibrated_classifier_has_a_small_error_and_a_boastful_one_a_large():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 20_000)
    labels = (rng.random(20_000) > p).astype(int)
    honest = np.stack([p, 1 - p], axis=1)
    assert expected_calibration_error(honest, labels) < 0.02
    assert expected_calibration_error(np.eye(2)[honest.argmax(1)], labels) == pytest.approx(0.25, abs=0.02)


def test_chance_is_the_share_of_the_largest_class():
    assert chance_accuracy([3, 3, 1]) == pytest.approx(2 / 3)


def test_each_class_counts_alike_in_the_balanced_skill():
    draw = np.random.default_rng(0)
    labels = (draw.random(4_000) < 0.03).astype(int)
    guess = np.tile([1.0, 0.0], (4_000, 1))
    wrong = draw.random(4_000) < 0.15
    knows = np.eye(2)[np.where(wrong, 1 - labels, labels)]
    assert 0.5 < balanced_skill(knows, labels) < 2 * balanced_accuracy_score(labels, knows.argmax(1)) - 1
    assert balanced_skill(guess, labels) <= 0
    assert balanced_skill(draw.random((4_000, 2)), labels) < 0.05
    assert balanced_skill(knows[:40], np.zeros(40, dtype=int)) == 0
    twelve = np.arange(12) % 2  # of few samples little is known, be they all right
    assert 0 < balanced_skill(np.eye(2)[twelve], twelve) < 0.8


@pytest.mark.parametrize("labels", [[], [0]])
def test_refuses_rows_without_labels(labels):
    with pytest.raises(ValueError, match="labels"):
        expected_calibration_error([[0.5, 0.5], [0.1, 0.9]], labels)


@pytest.mark.parametrize(
    ("right", "samples", "low", "high"),
    [(81, 263, 0.2535, 0.3682), (15, 148, 0.0598, 0.1644), (0, 20, 0.0, 0.2005), (1, 29, 0.0018, 0.1963)],
)
def test_the_interval_of_a_share_is_newcombes(right, samples, low, high):
    found = share_interval(right / samples, samples)
    assert found == pytest.approx((low, high), abs=1e-4)  # a table of four digits, and z = 1.96
    mirrored = share_interval(1 - right / samples, samples)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-4)  # a table of four digits, and z = 1.96


@pytest.mark.parametrize("overconfidence", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("samples", [100, 400, 2000])
def test_the_truth_lies_within_the_interval_of_the_calibration_error(samples, overconfidence):
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(60):
        # 15 values of confidence, one in the middle of each bin: then the error of the population is exact
        confidence = (rng.integers(8, 15, samples) + 0.5) / 15
        right = rng.random(samples) < confidence - overconfidence
        probabilities = np.stack([confidence, 1 - confidence], axis=1)
        low, high = calibration_interval(probabilities, np.where(right, 0, 1), seed)
        inside += low <= overconfidence + 1e-12 and overconfidence <= high
    assert inside >= 55  # 95 % of 60 is 57


@pytest.mark.parametrize("samples", [1, 2, 5, 20])
def test_few_samples_do_not_tell_the_calibration_error(samples):
    rng = np.random.default_rng(0)
    outside = 0
    for seed in range(200):
        confidence = np.full(samples, 29 / 30)
        right = rng.random(samples) < confidence - 0.05  # mostly all right: a bootstrap has no width
        probabilities = np.stack([confidence, 1 - confidence], axis=1)
        low, high = calibration_interval(probabilities, np.where(right, 0, 1), seed)
        outside += not low <= 0.05 <= high
    assert outside <= 10  # 5 % of 200


def test_the_interval_of_the_calibration_error_holds_the_estimate_and_repeats():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([4, 1, 1], 300)
    labels = rng.integers(0, 3, 300)
    low, high = calibration_interval(probabilities, labels, 3)
    assert 0 < low < expected_calibration_error(probabilities, labels) < high < 1
    assert calibration_interval(probabilities, labels, 3) == (low, high)


@pytest.mark.parametrize("more", [0.0, 0.06])
def test_the_truth_lies_within_the_interval_of_the_difference_of_two_calibration_errors(more):
    """Two models are right on the same samples and sure by different amounts, so that it is exact."""
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(60):
        confidence = (rng.integers(8, 13, 400) + 0.5) / 15
        right = rng.random(400) < confidence - 0.08
        labels = np.where(right, 0, 1)
        one, other = (np.stack([c, 1 - c], axis=1) for c in (confidence + more, confidence))
        low, high = calibration_difference(one, other, labels, seed)
        inside += low <= more + 1e-12 and more - 1e-12 <= high
    assert inside >= 55  # 95 % of 60 is 57


def test_the_interval_of_a_difference_of_calibration_errors_repeats_and_turns_with_the_models():
    rng = np.random.default_rng(0)
    one, other = rng.dirichlet([4, 1, 1], 300), rng.dirichlet([1, 1, 1], 300)
    labels = rng.integers(0, 3, 300)
    low, high = calibration_difference(one, other, labels, 3)
    assert calibration_difference(one, other, labels, 3) == (low, high)
    assert calibration_difference(other, one, labels, 3) == pytest.approx((-high, -low))
    assert calibration_difference(one, one, labels) == (0.0, 0.0)
