"""One VQ layer's arrays, as remedies change them: whoever writes codes writes sums and counts too."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.evidence import ACTIVE_SHARE
from vqdoctor.metrics.geometry import COPY, Mask, Rows, copies, faded_rows, row_norms, spread
from vqdoctor.metrics.match import nearest, unit
from vqdoctor.vq.codebook import dead_codes
from vqdoctor.vq.ema import divisor

Counts = NDArray[np.float64]

SAME = 1e-3
"""A code agrees with its sum and count up to this share of its length."""


@dataclass(kw_only=True, eq=False)
class LayerArrays:
    """One VQ layer's arrays, which remedies change in place, and what is known of it.

    Attributes:
        name: the layer.
        codebook: float32 [K, D].
        counts: EMA counts, float32 [K]; None where the layer has none.
        sums: EMA sums, float32 [K, D]; None where the layer has none.
        smoothing: epsilon of the Laplace smoothing of the counts that the layer divides its sums by; 0 where
            it uses none, None where that is unknown.
        known_usage: how often each code was chosen, [K]; None if unknown.
        z_e: the vectors that the codebook was asked for, float32 [N, D]; None without data.
        by_angle: whether vectors and codes are compared by their angle.
        unit_rows: whether the codes have norm one.
        chosen_by_logits: whether codes are chosen by a map of their own, wherever they lie.
        rng: the source of randomness.
        moved: which codes were written, bool [K].
        recounted: which counts and sums were written, bool [K].
        estimated: whether counts were written that no training and no data have counted.
    """

    name: str
    codebook: Rows
    counts: NDArray[np.float32] | None = None
    sums: Rows | None = None
    smoothing: float | None = None
    known_usage: Counts | None = None
    z_e: Rows | None = None
    by_angle: bool = False
    unit_rows: bool = False
    chosen_by_logits: bool = False
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    moved: Mask = field(init=False)
    recounted: Mask = field(init=False)
    estimated: bool = False

    def __post_init__(self) -> None:
        """Mark all rows as not written."""
        self.moved = np.zeros(len(self.codebook), dtype=bool)
        self.recounted = np.zeros(len(self.codebook), dtype=bool)

    @property
    def num_codes(self) -> int:
        """K."""
        return len(self.codebook)

    @property
    def finite(self) -> Mask:
        """Which codes are finite, bool [K]."""
        return np.asarray(np.isfinite(self.codebook).all(axis=1))

    @property
    def usage(self) -> Counts | None:
        """How often each code is chosen, [K]: counted on z_e with the codes as they are, where there is z_e.

        A code that is not finite counts as chosen never.
        """
        if self.z_e is None or self.chosen_by_logits or not self.finite.any():
            return self.known_usage
        rows = np.flatnonzero(self.finite)
        counted = np.zeros(self.num_codes)
        np.add.at(counted, rows[self.assign(self.z_e, self.codebook[rows])], 1.0)
        return counted

    def dead(self) -> Mask | None:
        """Return which codes are dead, bool [K]; None if their usage is unknown."""
        usage = self.usage
        if usage is None or not usage.sum() > 0:
            return None
        return dead_codes(usage)

    def assign(self, vectors: Rows, codes: Rows) -> NDArray[np.int64]:
        """Return the index of the code that each vector chooses, int64 [N]."""
        return nearest(self.as_compared(vectors), self.as_compared(codes)).indices

    def as_compared(self, vectors: Rows) -> Rows:
        """Return vectors or codes [N, D] at the length at which they are compared."""
        return unit(vectors) if self.by_angle else vectors

    def write(self, rows: NDArray[np.int64], codes: Rows) -> None:
        """Write codes [n, D] to these rows, of norm one where the layer's are; `settle` must follow."""
        self.codebook[rows] = unit(codes) if self.unit_rows else codes
        self.moved[rows] = True

    def restore_from_sums(self) -> str:
        """Write every code as its sum over its smoothed count, where all codes are equal.

        Returns:
            "", or the reason why no code was written.
        """
        if self.counts is None or self.sums is None:
            return "the layer stores no EMA sums and counts"
        if (self.codebook != self.codebook[0]).any():
            return "the codes differ from each other, so they were not overwritten as a whole"
        by = divisor(self.counts.astype(np.float64), self.smoothing)
        rows = np.flatnonzero((by > 0) & np.isfinite(self.sums).all(axis=1))
        means = (self.sums[rows] / by[rows, None]).astype(np.float32)
        if not len(rows) or (means == means[0]).all():
            return "the EMA sums over counts are all one and the same"
        self.write(rows, means)
        return ""

    def settle(self, counts: Counts, *, estimated: bool, also: Mask | None = None) -> None:
        """Write new counts [K], and sums that agree with the codes.

        The next EMA update divides the sums by the smoothed counts; so sum = code × smoothed count.

        Args:
            counts: of all codes. Only rows whose count changes, or whose code was moved, are written.
            estimated: whether they were counted by no training.
            also: further rows whose sums are written.
        """
        if self.counts is None:
            return
        new = counts.astype(np.float32)
        rows = (new != self.counts) | self.moved
        if also is not None:
            rows |= also
        self.counts[rows] = new[rows]
        self.recounted |= rows
        self.estimated |= estimated
        if self.sums is not None:
            self.sums[rows] = self.codebook[rows] * self.divisor()[rows, None]

    def divisor(self) -> NDArray[np.float32]:
        """Return the divisor of the sums in the next EMA update, float32 [K]."""
        assert self.counts is not None
        counts = self.counts.astype(np.float64)
        # broken counts have no sum to smooth by: the rows that are whole are still told apart from them
        smoothing = self.smoothing if counts.sum() > 0 else None
        return divisor(counts, smoothing).astype(np.float32)

    def sound_counts(self) -> Counts | None:
        """Return the counts as float64 [K], broken and negative ones as 0; None where there are none."""
        if self.counts is None:
            return None
        counts = self.counts.astype(np.float64)
        return np.where(np.isfinite(counts) & (counts > 0), counts, 0.0)

    def least_count(self) -> float:
        """Return the count under which a code is lost: its sum would fade before data finds it.

        It is half of what a dead code may have at most, so that a dead code still counts as dead. It
        is one before the first count.
        """
        counts = self.sound_counts()
        mean = float(counts.mean()) if counts is not None else 0.0
        return 0.5 * ACTIVE_SHARE * mean if mean > 0 else 1.0

    def copies(self) -> Mask:
        """Return which finite codes lie within rounding, 0.1 % of the codes' spread, of one that is kept.

        Codes that have faded to zero are dead, and no copies.
        """
        rows = np.flatnonzero(self.finite)
        tolerance = COPY * spread(self.codebook[rows])
        rows = rows[~faded_rows(self.codebook[rows])]
        found = np.zeros(self.num_codes, dtype=bool)
        if len(rows):
            found[rows] = copies(self.codebook[rows], tolerance)
        return found

    def disagreeing(self) -> Mask | None:
        """Return which finite codes the next EMA update would move without data; None without statistics."""
        if self.counts is None or self.sums is None:
            return None
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            means = self.sums / self.divisor()[:, None]
            off = row_norms(means - self.codebook) > SAME * row_norms(self.codebook)
        return np.asarray(self.finite & (off | ~np.isfinite(means).all(axis=1)))

    def broken_statistics(self) -> Mask:
        """Return where a count or a sum is not finite, or a count is negative; bool [K]."""
        broken = np.zeros(self.num_codes, dtype=bool)
        if self.counts is not None:
            broken |= ~np.isfinite(self.counts) | (self.counts < 0)
        if self.sums is not None:
            broken |= ~np.isfinite(self.sums).all(axis=1)
        return broken

    def gap(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the distance of each of these codes to the nearest other one, float32 [n].

        Where there is no other, it is a tenth of the code's length.
        """
        found = np.empty(len(rows), dtype=np.float32)
        others = self.codebook[self.finite]
        for i, row in enumerate(rows):
            far = row_norms(others - self.codebook[row])
            alone = 0.1 * float(np.linalg.norm(self.codebook[row])) or 1.0
            found[i] = far[far > 0].min(initial=np.inf) if (far > 0).any() else alone
        return found
