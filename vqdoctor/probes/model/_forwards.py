"""The codebook before and after each of a few train-mode forward passes, without any optimizer step."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.capture.step import Step
from vqdoctor.capture.vectors import rows
from vqdoctor.core.frozen import frozen
from vqdoctor.layouts.live_rows import chosen_lately
from vqdoctor.metrics.means import code_means
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._looks import Looking, shared

PASSES = 4
SURE = 1e-3
"""Counts above this are far above any smoothing."""
ALIKE = 3
"""Number of counts that have to shrink alike."""
SAME_LOSS = 0.02
"""Relative difference of 1 - d among them: float32 makes 0.01 at a decay of 0.99999."""
SAME_MEAN = 1e-3
"""Relative distance within which a code is a mean: float32 and the smoothing of a count leave 1e-5."""
FAR = 0.5
"""A code has moved far when it travels over half the distance of a typical code from their mean."""


@frozen
class Pass:
    """The effect of one forward pass on one layer's codebook.

    Attributes:
        travelled: how far each row moved, over `scale`, float64 [rows].
        in_use: which rows are codes in use, bool [rows].
        vectors: vectors that were quantized.
        counts_moved: whether the EMA counts changed; None without counts.
        decay: the EMA decay, as counts shrink of codes that no vector chose; None where they do not tell.
        batch_means: share of the chosen codes that are the means of this pass's vectors; None if unseen.
    """

    travelled: NDArray[np.float64]
    in_use: NDArray[np.bool_]
    vectors: int
    counts_moved: bool | None
    decay: float | None = None
    batch_means: float | None = None


@shared(passes=PASSES)
def passes(context: ModelContext) -> Looking[dict[str, list[Pass]]]:
    """See the effect of each forward pass on each layer."""
    found: dict[str, list[Pass]] = defaultdict(list)
    before = {name: _state(layer) for name, layer in context.layers.items()}
    for _ in range(PASSES):
        for name, step in ((yield None) or {}).items():
            after = _state(step.layer)
            found[name].append(_compare(before[name], after, step))
            before[name] = after
    return found


_State = tuple[NDArray[np.float64], NDArray[np.float64] | None]


def _state(layer: CapturedLayer) -> _State:
    """Return the codebook's rows and the counts, all heads together, as the model holds them now."""
    codes, counts = (
        None if t is None else t.detach().double().cpu().numpy().copy()
        for t in (layer.stored(), layer.stored("counts"))
    )
    assert codes is not None
    if codes.shape == (layer.view.dim, layer.view.num_codes):
        codes = codes.T
    return codes.reshape(-1, codes.shape[-1]), None if counts is None else counts.reshape(-1)


def _compare(before: _State, after: _State, step: Step) -> Pass:
    codes, counts = before
    lately = None if counts is None else chosen_lately(counts.astype(np.float32))
    fits = lately is not None and len(lately) == len(codes) and lately.any()
    in_use = lately if fits and lately is not None else np.ones(len(codes), dtype=bool)
    live = codes[in_use]
    scale = float(np.median(np.linalg.norm(live - live.mean(axis=0), axis=1)))
    scale = scale or float(np.sqrt(np.mean(codes**2) * codes.shape[1])) or 1.0
    return Pass(
        travelled=np.linalg.norm(after[0] - codes, axis=1) / scale,
        in_use=in_use,
        vectors=step.vectors,
        counts_moved=None if counts is None or after[1] is None else not np.array_equal(counts, after[1]),
        decay=None if counts is None or after[1] is None else decay_of(counts, after[1]),
        batch_means=None if np.array_equal(after[0], codes) else _batch_means(step, after[0]),
    )


def _batch_means(step: Step, codes: NDArray[np.float64]) -> float | None:
    """Return the share of the codes [K, D] chosen in a step that are the means of its vectors."""
    reader, call = step.layer.reader, step.call
    given = reader.given(call)
    z_e = rows(call.z_e.detach(), reader.axis(call)).flatten(0, 1).double().cpu().numpy()
    if given is None or reader.head is not None or z_e.shape != (given.numel(), codes.shape[1]):
        return None
    chosen = given.flatten().cpu().numpy()
    if chosen.min() < 0 or len(codes) <= chosen.max():
        return None
    counts, means = code_means(z_e, chosen, len(codes))
    used = counts > 0
    if used.sum() < ALIKE:
        return None
    apart = np.linalg.norm(codes - means, axis=1)[used]
    return float(np.mean(apart <= SAME_MEAN * np.linalg.norm(means, axis=1)[used]))


def decay_of(before: NDArray[np.float64], after: NDArray[np.float64]) -> float | None:
    """Return the factor by which the counts [K] of several codes have shrunk alike; else None.

    A count is c' = d c + (1 - d) n, so that of a code without any vector shrinks by d, and no count by more.
    """
    known = np.isfinite(before) & np.isfinite(after) & (before > SURE)
    ratios = np.sort(after[known] / before[known])
    if len(ratios) < ALIKE or not 0 < ratios[0] < 1 or ratios[ALIKE - 1] >= 1:
        return None
    lost = 1 - ratios[:ALIKE]
    return float(ratios[0]) if np.ptp(lost) <= SAME_LOSS * lost[0] else None
