"""From codes, their use and z_e to `PrincipalPlane`: for a file, a dump and a model alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.evidence import PrincipalPlane, Source
from vqdoctor.core.evidence.shown import MOST_POINTS
from vqdoctor.metrics.entropy import Floats, Ints
from vqdoctor.metrics.geometry import Rows
from vqdoctor.metrics.plane import principal_plane


def plane(
    codebook: Rows, usage: Floats | Ints | None, *, source: Source, vectors: Rows | None = None, seed: int = 0
) -> PrincipalPlane:
    """Return the codes and the vectors in two principal components.

    Args:
        codebook: finite codes, [K, D].
        usage: how often each is chosen, [K]; None where unknown.
        source: where the usage and the vectors were seen.
        vectors: finite z_e, [N, D].
        seed: of the vectors that are drawn.
    """
    size = len(codebook)
    ordered = np.arange(size) if usage is None else np.argsort(-usage, kind="stable")
    kept = ordered[np.linspace(0, size - 1, min(size, MOST_POINTS)).round().astype(np.int64)]
    codes, seen = codebook[kept], codebook[:0] if vectors is None else vectors
    if len(seen) > MOST_POINTS:
        seen = seen[np.random.default_rng(seed).choice(len(seen), MOST_POINTS, replace=False)]
    shown = principal_plane(codes, seen)
    total = 0.0 if usage is None else float(usage.sum())
    return PrincipalPlane(
        source=source,
        sample_size=size,
        vectors=0 if vectors is None else len(vectors),
        first=shown.shares[0],
        second=shown.shares[1],
        code_x=short(shown.points[0][:, 0]),
        code_y=short(shown.points[0][:, 1]),
        code_use=short(usage[kept] * (size / total)) if usage is not None and total > 0 else (),
        vector_x=short(shown.points[1][:, 0]),
        vector_y=short(shown.points[1][:, 1]),
    )


def short(values: NDArray[np.floating[Any]]) -> tuple[float, ...]:
    """Return numbers with four significant digits, more than a picture shows."""
    return tuple(float(f"{value:.4g}") for value in values.tolist())
