"""Accuracy, and whether a classifier is as sure as it is right."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from vqdoctor.metrics.entropy import Floats, Ints
from vqdoctor.metrics.geometry import Mask
from vqdoctor.metrics.interval import TAIL, Z

BINS = 15
_DRAWS = 200
MOST_TEMPERATURE = 20.0
"""The largest temperature that is looked for; the least is one over it."""
_GOLDEN = (math.sqrt(5) - 1) / 2
_HALVINGS = 40  # 6 / 1.618^40: to nine digits


def softmax(logits: ArrayLike) -> Floats:
    """Return the class probabilities [N, C] of `logits` [N, C], in float64.

    >>> softmax([[1000.0, 1000.0]]).tolist()
    [[0.5, 0.5]]
    """
    logits = np.asarray(logits, dtype=np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def surprise(logits: ArrayLike, labels: ArrayLike) -> Floats:
    """Return the negative log likelihood of each label [N] under softmax(logits [N, C]), in nats.

    Raises:
        ValueError: if there are no rows, or the numbers of rows differ.

    >>> surprise([[0.0, 0.0]], [1]).round(3).tolist()
    [0.693]
    """
    scores, labels = _checked(logits, labels)
    scores = scores - scores.max(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    return np.asarray(np.log(np.exp(scores).sum(axis=1)) - scores[rows, labels.astype(np.int64)])


def temperature_of(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature T > 0 at which softmax(logits / T) has the least negative log likelihood.

    Fit it on data that neither trained the model nor is scored with it. The likelihood has one minimum along
    1/T, since it is convex there; golden-section search over T from 0.05 to 20 finds it. Formula: Guo et al.
    2017, "On Calibration of Modern Neural Networks", section 4.2.

    Args:
        logits: [N, C].
        labels: int [N].

    Raises:
        ValueError: if there are no rows, or the numbers of rows differ.

    >>> round(temperature_of([[4.0, 0.0]] * 3 + [[0.0, 4.0]], [0, 0, 0, 0]), 2)
    3.64
    """
    scores, labels = _checked(logits, labels)

    def mean(log: float) -> float:
        return float(surprise(scores * math.exp(-log), labels).mean())

    low, high = -math.log(MOST_TEMPERATURE), math.log(MOST_TEMPERATURE)
    for _ in range(_HALVINGS):
        one, other = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, other) if mean(one) <= mean(other) else (one, high)
    return math.exp((low + high) / 2)


def accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the share of the rows of `scores` [N, C] whose largest entry is at `labels` [N].

    >>> accuracy([[0.9, 0.1], [0.8, 0.2]], [0, 1])
    0.5
    """
    scores, labels = _checked(scores, labels)
    return float(np.mean(scores.argmax(axis=1) == labels))


def chance_accuracy(labels: ArrayLike) -> float:
    """Return the share of the most frequent label: what a guess without any code gets.

    >>> chance_accuracy([0, 0, 0, 1])
    0.75
    """
    counts = np.unique(np.asarray(labels), return_counts=True)[1]
    return float(counts.max() / counts.sum())


def balanced_skill(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the least skill of a classifier that counts each class alike: of a rare event too.

    The skill is (r - 1/C) / (1 - 1/C), with r the mean of each class's share of right answers (balanced
    accuracy, Brodersen et al. 2010) over the C classes that there are. Returned is the lower end of its
    95 % interval, with Agresti and Coull's share for each class; 0 for a single class.

    Args:
        logits: class scores [N, C].
        labels: class labels [N].
    """
    truth = np.asarray(labels)
    right = np.asarray(logits).argmax(axis=1) == truth
    classes, which, counts = np.unique(truth, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        return 0.0
    recall = np.bincount(which, weights=right) / counts
    wider = (recall * counts + 2) / (counts + 4)
    error = math.sqrt((wider * (1 - wider) / (counts + 4)).sum()) / len(classes)
    chance = 1 / len(classes)
    return float((recall.mean() - 1.96 * error - chance) / (1 - chance))


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> float:
    """Return the L1 expected calibration error Σ bᵢ |accᵢ − confᵢ| over uniform bins (lower, upper].

    Confidence is the largest probability of a row [N, C]; bᵢ is the share of rows in bin i. Formula:
    Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.

    Raises:
        ValueError: if there are no rows, or the numbers of rows differ.

    >>> round(expected_calibration_error([[0.8, 0.2], [0.8, 0.2]], [0, 1]), 3)
    0.3
    """
    where, confidence, right = _binned(probabilities, labels, bins)
    return _gap(where, right - confidence, bins)


def calibration_interval(
    probabilities: ArrayLike, labels: ArrayLike, seed: int = 0, bins: int = BINS
) -> tuple[float, float]:
    """Return a 95 % interval of the expected calibration error of `probabilities` [N, C].

    The estimate is too high by what chance alone leaves in every bin, and by no more than it would be
    were the model perfectly calibrated: that much is taken off the lower end. The width is 1.96 standard
    deviations of a bootstrap over the samples, and no less than what was never drawn may weigh: a bootstrap
    of one sample, or of samples that are all right, has no width.

    Raises:
        ValueError: if there are no rows, or the numbers of rows differ.
    """
    where, confidence, right = _binned(probabilities, labels, bins)
    rng = np.random.default_rng(seed)
    measured = _gap(where, right - confidence, bins)
    by_chance = [_gap(where, (rng.random(len(right)) < confidence) - confidence, bins) for _ in range(_DRAWS)]
    drawn = np.empty(_DRAWS)
    for i in range(_DRAWS):
        rows = rng.integers(0, len(right), len(right))
        drawn[i] = _gap(where[rows], (right - confidence)[rows], bins)
    never_drawn = 1 - TAIL ** (1 / len(right))  # all samples miss this much once in forty times
    spread = max(Z * float(drawn.std(ddof=1)), never_drawn)
    return max(0.0, measured - float(np.mean(by_chance)) - spread), min(1.0, measured + spread)


def calibration_difference(
    probabilities: ArrayLike, others: ArrayLike, labels: ArrayLike, seed: int = 0, bins: int = BINS
) -> tuple[float, float]:
    """Return a 95 % interval of the calibration error of one model less that of another on the same samples.

    The middle is the difference itself; the width is 1.96 standard deviations of a bootstrap that draws the
    samples of both together: the share that chance alone leaves in the bins is in both.

    Args:
        probabilities: class probabilities of the one, [N, C].
        others: class probabilities of the other, [N, C].
        labels: int [N].
        seed: of the bootstrap.
        bins: how many bins.

    Raises:
        ValueError: if there are no rows, or the numbers of rows differ.
    """
    one, other = (_binned(scores, labels, bins) for scores in (probabilities, others))
    rng = np.random.default_rng(seed)
    rows = len(one[0])

    def difference(drawn: Ints | slice) -> float:
        gaps = [_gap(w[drawn], (r - c)[drawn], bins) for w, c, r in (one, other)]
        return gaps[0] - gaps[1]

    measured = difference(slice(None))
    spread = Z * float(np.std([difference(rng.integers(0, rows, rows)) for _ in range(_DRAWS)], ddof=1))
    return max(-1.0, measured - spread), min(1.0, measured + spread)


def _binned(probabilities: ArrayLike, labels: ArrayLike, bins: int) -> tuple[Ints, Floats, Mask]:
    """Return each row's bin and confidence, and whether it is right."""
    scores, labels = _checked(probabilities, labels)
    confidence = scores.max(axis=1)
    where = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return where, confidence, scores.argmax(axis=1) == labels


def _gap(where: Ints, excess: Floats, bins: int) -> float:
    return float(np.abs(np.bincount(where, weights=excess, minlength=bins)).sum() / len(where))


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not len(labels):
        raise ValueError(f"scores {scores.shape} and labels {labels.shape}: expected [N, C] and [N], N > 0")
    return scores, labels
