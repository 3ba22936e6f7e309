"""The information of single positions' codes about the label."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vqdoctor.metrics.entropy import LN2, Ints, grassberger_entropy

_SHUFFLES = 4


def entropy_bits(values: ArrayLike) -> float:
    """Return Grassberger's entropy of whole-numbered `values` (any shape), in bits.

    >>> round(entropy_bits([0, 1] * 1000), 2)
    1.0
    """
    counts = np.unique(np.asarray(values), return_counts=True)[1]
    return float(grassberger_entropy(counts)) / LN2


def conditional_entropy_bits(codes: ArrayLike) -> float:
    """Return the entropy of `codes` [S, P] given their position, averaged over positions, in bits."""
    codes = _as_table(codes)
    return float(np.mean([entropy_bits(column) for column in codes.T]))


def mutual_information(codes: ArrayLike, labels: ArrayLike, seed: int = 0) -> float:
    """Return the information that one position's code carries about the label, in bits.

    `codes` are [S, P] or [S], `labels` [S]; positions are averaged. Most cells of the code × label
    table hold few samples or none, so even Grassberger's estimate is too large. The estimate
    on shuffled labels, E, is chance, and is taken out as in the adjusted mutual information (Vinh
    et al. 2010): H (I − E) / (H − E) with H the entropy of the labels, held between 0 and H.

    >>> labels = np.arange(2000) % 4
    >>> round(mutual_information(labels, labels), 3), mutual_information(labels * 0, labels)
    (2.0, 0.0)
    """
    codes, labels = _as_table(codes), _dense(labels)
    rng = np.random.default_rng(seed)
    most = entropy_bits(labels)
    if most == 0:
        return 0.0
    shuffles = [rng.permutation(labels) for _ in range(_SHUFFLES)]
    total = 0.0
    for column in codes.T:
        column = _dense(column)
        chance = float(np.mean([_raw_information(column, s) for s in shuffles]))
        found = _raw_information(column, labels)
        if chance < most:
            total += min(max(most * (found - chance) / (most - chance), 0.0), most)
    return float(total / codes.shape[1])


def held_out_accuracy(codes: ArrayLike, labels: ArrayLike, folds: int = 5, seed: int = 0) -> float:
    """Return how often argmax p(label | code, position) is right on samples that p was not fitted to.

    `codes` [S, P] or [S], `labels` [S]. Each fold is guessed from the others; a code that they do
    not hold at that position is guessed as their most frequent label.

    >>> held_out_accuracy([0, 1] * 50, [5, 7] * 50)
    1.0
    """
    codes, labels = _as_table(codes), _dense(labels)
    samples, positions = codes.shape
    fold = np.random.default_rng(seed).permutation(samples) % folds
    cells = _dense(codes) * positions + np.arange(positions)  # one number for each (code, position)
    right = 0
    for held_out in range(folds):
        test = fold == held_out
        if not test.any() or test.all():
            continue
        fitted = np.repeat(labels[~test], positions)
        guess = _most_frequent(cells[~test].ravel(), fitted, cells[test].ravel())
        right += int(np.sum(guess == np.repeat(labels[test], positions)))
    return right / codes.size


def _most_frequent(cells: Ints, labels: Ints, wanted: Ints) -> Ints:
    """For each of `wanted`, the label seen most often with that cell."""
    classes = int(labels.max()) + 1
    pairs, counts = np.unique(cells * classes + labels, return_counts=True)
    order = np.lexsort((counts, pairs // classes))
    known, label = pairs[order] // classes, pairs[order] % classes
    last = np.append(known[1:] != known[:-1], True)  # the largest count of each cell comes last
    known, label = known[last], label[last]
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, label[at], np.bincount(labels).argmax())


def _raw_information(codes: Ints, labels: Ints) -> float:
    joint = codes * (int(labels.max()) + 1) + labels
    return entropy_bits(codes) + entropy_bits(labels) - entropy_bits(joint)


def _as_table(codes: ArrayLike) -> Ints:
    codes = np.asarray(codes, dtype=np.int64)
    return codes[:, None] if codes.ndim == 1 else codes.reshape(len(codes), -1)


def _dense(values: ArrayLike) -> Ints:
    """The same values renamed 0, 1, 2, …, in the same shape."""
    values = np.asarray(values)
    return np.unique(values, return_inverse=True)[1].reshape(values.shape).astype(np.int64)
