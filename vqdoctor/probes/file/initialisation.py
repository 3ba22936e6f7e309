"""Whether the codebook was ever initialised and trained, as far as the file tells."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import Evidence, Initialisation, Unavailable
from vqdoctor.layouts.live_rows import never_written
from vqdoctor.layouts.view import Array
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Probe
from vqdoctor.saved.optimizer import SavedOptimizer

_DIMS = 64
"""Dimensions that are correlated with each other, at most; more add nothing but time."""


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield how every layer's codebook was started."""
    stepped = _stepped(context.saved.optimizers)
    for view in context.readable(Initialisation.kind):
        if isinstance(view, Unavailable):
            yield view
            continue
        counts = view.counts
        yield Initialisation(
            layer=view.name,
            source="checkpoint",
            sample_size=len(view.codebook),
            identical_rows=int(np.sum((view.codebook == view.codebook[0]).all(axis=1))),
            zero_rows=int(np.sum(~view.codebook.any(axis=1))),
            flag=view.initted,
            counts_written=None if counts is None else not never_written(counts),
            stepped=stepped,
            updates=context.saved.record.updates,
            structure=_structure(view.codebook),
            frozen=view.frozen,
        )


def _stepped(optimizers: tuple[SavedOptimizer, ...]) -> bool | None:
    """Whether any optimizer took a step. Without any state that is a no for Adam's kin only."""
    slots = [slot for optimizer in optimizers for slot in optimizer.slots]
    if any(slot.state for slot in slots):
        return True
    return False if slots and all(slot.beta2 is not None for slot in slots) else None


def _structure(codebook: Array) -> float:
    """Return how far the rows' dimensions correlate beyond chance, in standard deviations.

    Of K rows of independent noise, the squared correlation of two dimensions has mean 1/(K - 1) and
    variance about 2/(K - 1)^2.
    """
    rows = codebook[:, :_DIMS].astype(np.float64)
    rows = rows[:, rows.std(axis=0) > 0]
    dims = rows.shape[1]
    if dims < 2:
        return 0.0
    squares = np.atleast_2d(np.corrcoef(rows, rowvar=False))[np.triu_indices(dims, 1)] ** 2 * (len(rows) - 1)
    return float((squares - 1).sum() / np.sqrt(2 * len(squares)))


PROBE = Probe(kinds=(Initialisation,), measure=measure)
