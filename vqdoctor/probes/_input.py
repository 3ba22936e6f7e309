"""The shape and range of the input, the same for x and for a dumped z_e."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.evidence import InputSummary


def summarise(
    name: str, array: NDArray[Any], values: NDArray[Any], labels: NDArray[Any] | None = None
) -> InputSummary:
    """Return a summary of `array`, samples first, whose finite numbers are `values`."""
    return InputSummary(
        source="batch",
        sample_size=len(array),
        name=name,
        shape=tuple(map(int, array.shape)),
        minimum=float(values.min()),
        maximum=float(values.max()),
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        labels=len(np.unique(labels)) if labels is not None else 0,
    )
