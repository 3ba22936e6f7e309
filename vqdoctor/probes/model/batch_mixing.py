"""Do neighbouring training batches hold the same kind of sample? A permutation test.

Blocks of four batches are compared with single batches: what the samples of a block share beyond what
the samples of one batch share is the correlation of neighbouring batches. Batches that are alike within, but
come in a random order, have none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.evidence import BatchMixing
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import of_model
from vqdoctor.probes.model._looks import Looking, shared
from vqdoctor.probes.probe import Missing

_BLOCK = 4
_LEAST_BLOCKS = 4
_KINDS = 64
"""Kinds of labels and codes that are told apart, at most; more are thrown together at random."""
_SAMPLES = 4096
_PERMUTATIONS = 60
_Table = NDArray[np.float64]


@shared(passes=1)
def look(_: ModelContext) -> Looking[tuple[int | None, int | None]]:
    """See the labels of the first training batch, and the rows of z_e; None where there are none."""
    for step in ((yield None) or {}).values():
        labels = step.losses.labels
        return None if labels is None else len(labels), step.z_e.shape[0]
    return None, None


def measure(context: ModelContext) -> BatchMixing:
    """Return how well the training batches are mixed."""
    if context.arrays:
        raise Missing("the batches are the rows of a data file, whose order need not be that of the training")
    codes = context.codes("train")
    scored = context.scored.get("train")
    labels = scored.labels if scored else None
    labelled, rows = look.at(context)
    size = rows if labels is None or labelled is None else labelled
    tables = [_table(c, context.seed) for c in codes.values() if len(np.unique(c)) > 1]
    flat = None if labels is None or len(np.unique(labels)) < 2 else labels.reshape(len(labels), -1)
    samples = max([len(t) for t in tables] + ([] if flat is None else [len(flat)]), default=0)
    batches = min(samples, _SAMPLES) // size if size else 0
    if size is None or batches < _BLOCK * _LEAST_BLOCKS:
        least = _BLOCK * _LEAST_BLOCKS
        raise Missing(f"the order needs {least} training batches, of samples that differ", "--batches 64")
    rng = np.random.default_rng(context.seed)
    by_code = [_drift(table, size, rng) for table in tables if len(table) == samples]
    by_label = None if flat is None else _drift(_table(flat, context.seed), size, rng)
    code = max(by_code, default=None)
    return BatchMixing(
        source="batch",
        sample_size=batches * size,
        batch_size=size,
        batches=batches,
        label_drift=by_label[0] if by_label else None,
        label_z=by_label[1] if by_label else None,
        code_drift=code[0] if code else None,
        code_z=code[1] if code else None,
    )


def _table(kinds: NDArray[np.int64], seed: int) -> _Table:
    """Return how often each sample holds each kind, [samples, kinds]."""
    kinds = kinds[:_SAMPLES]
    values, places = np.unique(kinds, return_inverse=True)
    if len(values) > _KINDS:
        places = np.random.default_rng(seed).integers(_KINDS, size=len(values))[places]
    table = np.zeros((len(kinds), min(len(values), _KINDS)))
    np.add.at(table, (np.arange(len(kinds))[:, None], places.reshape(kinds.shape)), 1.0)
    return table


def _drift(table: _Table, size: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return the correlation of neighbouring batches, and its z-score under random orders.

    A chi-square over J groups of m samples is J (1 + (m - 1) r), in units that random orders tell, where r
    is the mean correlation of the samples of a group. Blocks less batches leave the pairs of neighbours.
    """
    whole = len(table) // (size * _BLOCK) * size * _BLOCK
    table = table[:whole]
    groups = np.array([whole // size, whole // (size * _BLOCK)])
    by_chance = np.array([_uneven(table[rng.permutation(whole)], size) for _ in range(_PERMUTATIONS)])
    unit = by_chance.mean(axis=0) * groups / (groups - 1)
    if not unit.all():  # all samples are of one kind, however they come
        return 0.0, 0.0
    neighbours = (_BLOCK - 1) * size
    observed = np.diff(_uneven(table, size) / unit)[0] / neighbours
    spread = (np.diff(by_chance / unit, axis=1) / neighbours).std()
    return float(observed), float(observed / spread) if spread else 0.0


def _uneven(table: _Table, size: int) -> NDArray[np.float64]:
    """Return the chi-square of batches against kinds, and of blocks of batches against kinds."""
    batches = table.reshape(-1, size, table.shape[1]).sum(axis=1)
    blocks = batches.reshape(-1, _BLOCK, table.shape[1]).sum(axis=1)
    return np.array([_chi_square(batches), _chi_square(blocks)])


def _chi_square(counts: _Table) -> float:
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    there = expected > 0
    return float((((counts - expected) ** 2)[there] / expected[there]).sum())


PROBE = of_model(BatchMixing, measure, mode="both")
