"""One codebook's arrays, numpy or torch: whoever writes codes writes all that belongs to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, cast, overload

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.evidence.codebook import ACTIVE_SHARE
from vqdoctor.vq.ema import A, divisor
from vqdoctor.vq.outlier import others

if TYPE_CHECKING:
    import torch

_TINY = 1e-12


@dataclass(frozen=True, kw_only=True, eq=False)
class Codebook(Generic[A]):
    """The arrays of one codebook, or views of a model's own tensors; writing changes these in place.

    Attributes:
        codes: [K, D]; None where they are stored as sums and counts alone.
        counts: EMA counts, [K]; None where there are none.
        sums: EMA sums, [K, D]; None where there are none.
        smoothing: epsilon of the smoothing of the counts; None is unknown.
        initialised: the flag of data-driven initialisation, of any shape; None where there is none.
        unit: whether codes have norm one, as codes do that are compared by their angle.
    """

    codes: A | None
    counts: A | None = None
    sums: A | None = None
    smoothing: float | None = None
    initialised: A | None = None
    unit: bool = False

    def write(
        self,
        rows: A | NDArray[np.int64],
        codes: A,
        counts: A | float | None = None,
        moments: Iterable[A] = (),
    ) -> None:
        """Write codes so that neither the next EMA update nor the next optimizer step undoes them.

        The EMA sums become codes × smoothed counts, an optimizer's moments of these rows are cleared, and
        the flag of the initialisation is set, without which the next forward pass overwrites the codes.

        Args:
            rows: which codes, int64 [n].
            codes: their values, [n, D].
            counts: their EMA counts, [n] or one for all; None keeps what is stored.
            moments: an optimizer's moments of the codes, each [K, D].
        """
        if self.unit:
            codes = codes / ((codes * codes).sum(1) ** 0.5).clip(_TINY)[:, None]
        if self.codes is not None:
            _put(self.codes, rows, codes)
        if self.counts is not None:
            if counts is not None:
                _put(self.counts, rows, counts)
            if self.sums is not None:
                _put(self.sums, rows, codes * divisor(self.counts, self.smoothing)[rows][:, None])
        if self.initialised is not None:
            self.initialised[...] = 1
        for moment in moments:
            moment[rows] = 0


def _put(stored: A, rows: A | NDArray[np.int64], values: A | float) -> None:
    """Set rows of an array; torch, unlike numpy, does not convert the values on its own."""
    stored[rows] = values.to(stored) if hasattr(values, "to") else values


@overload
def dead_codes(usage: NDArray[np.float64], threshold: float = ACTIVE_SHARE) -> NDArray[np.bool_]: ...


@overload
def dead_codes(usage: torch.Tensor, threshold: float = ACTIVE_SHARE) -> torch.Tensor: ...


def dead_codes(
    usage: NDArray[np.float64] | torch.Tensor, threshold: float = ACTIVE_SHARE
) -> NDArray[np.bool_] | torch.Tensor:
    """Return which codes are under `threshold` / K of the usage, bool [K].

    The usage is that of the other codes where one stands far above them, as padding does.

    The threshold is relative to uniform usage: an absolute one, such as 0.01, is above the uniform
    share of 256 codes and calls every code dead. Under a threshold of at most one the most used
    code is never dead, so a codebook never changes as a whole.

    Args:
        usage: how often each code was chosen, float64 [K].
        threshold: multiple of the uniform share 1/K, above 0 and at most 1.

    Raises:
        ValueError: if the threshold is not in (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold must be above 0 and at most 1 (a multiple of 1/K), got {threshold}")
    rest = others(cast("NDArray[np.float64]", usage))  # a tensor has the methods that it takes
    shared = usage if rest is None else rest
    return usage * len(shared) < threshold * shared.sum()
