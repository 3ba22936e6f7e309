"""The encoder's output z_e against the codebook: assignment, and how well the two lie together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vqdoctor.core.frozen import frozen
from vqdoctor.metrics.entropy import Floats, Ints
from vqdoctor.metrics.geometry import Rows, effective_rank, root_mean_square, row_norms, spread
from vqdoctor.metrics.means import code_means

_CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class Assignment:
    """Each vector's nearest code, and each code's nearest vector.

    Attributes:
        indices: the code nearest to each vector, int64 [N].
        vector_distance: its distance, float64 [N].
        code_distance: distance of each code to the nearest vector, float64 [K].
    """

    indices: Ints
    vector_distance: Floats
    code_distance: Floats


@frozen
class Match:
    """How z_e and the codebook lie together; the fields are those of the evidence `DataMatch`."""

    dim: int
    data_rms: float
    data_std: float
    data_mean_norm: float
    data_effective_rank: float
    codebook_rms: float
    codebook_std: float
    mean_offset: float
    quantization_error: float
    scale_ratio: float
    nearest_data: float
    mean_gain: float


def unit(rows: Rows) -> Rows:
    """Return `rows` [N, D] scaled to norm one, as a cosine codebook sees them; zero rows stay zero."""
    norms = row_norms(rows)[:, None]
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0, casting="same_kind")


def nearest(vectors: Rows, codebook: Rows) -> Assignment:
    """Assign `vectors` [N, D] to the nearest rows of `codebook` [K, D], in chunks of 8 MiB.

    The search expands |z − e|² in float32 around the mean code, so that a common offset costs no
    precision; the distances that are returned are computed again from the differences.
    """
    centre = codebook.mean(axis=0, dtype=np.float64).astype(np.float32)
    dim, codes = codebook.shape[1], codebook - centre
    kind = np.result_type(vectors, codes)
    # one product [z, 1] · [-e, |e|²/2] gives the distance less a constant per vector, without another pass
    offered = np.empty((dim + 1, len(codes)), dtype=kind)
    offered[:dim] = -codes.T
    offered[dim] = 0.5 * np.einsum("kd,kd->k", codes, codes)
    rows = max(1, _CHUNK_BYTES // (4 * len(codebook)))
    asked = np.ones((min(rows, len(vectors)), dim + 1), dtype=kind)
    space = np.empty((len(asked), len(codes)), dtype=kind)
    indices = np.empty(len(vectors), dtype=np.int64)
    best = np.full(len(codebook), np.inf, dtype=np.float32)
    closest = np.zeros(len(codebook), dtype=np.int64)
    for start in range(0, len(vectors), rows):
        part = vectors[start : start + rows]
        chunk = asked[: len(part), :dim]
        np.subtract(part, centre, out=chunk)
        table = np.matmul(asked[: len(part)], offered, out=space[: len(part)])
        indices[start : start + rows] = table.argmin(axis=1)
        table += 0.5 * np.einsum("nd,nd->n", chunk, chunk)[:, None]
        least = table.min(axis=0)
        nearer = np.flatnonzero(least < best)  # few, after the first chunks
        closest[nearer] = start + table[:, nearer].argmin(axis=0)
        best[nearer] = least[nearer]
    return Assignment(
        indices=indices,
        vector_distance=_distances(vectors, codebook, indices),
        code_distance=_distances(codebook, vectors, closest),
    )


def match(vectors: Rows, codebook: Rows, found: Assignment | None = None) -> Match | None:
    """Compare finite `vectors` [N, D] with a finite `codebook` [K, D]; `found` is their `nearest`.

    None where the vectors are all equal or the codebook is all zero: no scale to compare by.
    """
    data_std = spread(vectors)
    codebook_rms, data_rms = root_mean_square(codebook), root_mean_square(vectors)
    # Equal float32 rows do not cancel to the last bit.
    if data_std <= 1e-7 * data_rms or codebook_rms == 0:
        return None
    found = found or nearest(vectors, codebook)
    data_mean = vectors.mean(axis=0, dtype=np.float64)
    offset = np.linalg.norm(data_mean - codebook.mean(axis=0, dtype=np.float64))
    return Match(
        dim=vectors.shape[1],
        data_rms=data_rms,
        data_std=data_std,
        data_mean_norm=float(np.linalg.norm(data_mean)),
        data_effective_rank=effective_rank(vectors),
        codebook_rms=codebook_rms,
        codebook_std=spread(codebook),
        mean_offset=float(offset) / data_std,
        quantization_error=float(np.mean(found.vector_distance**2)) / data_std**2,
        scale_ratio=data_rms / codebook_rms,
        nearest_data=float(np.median(found.code_distance)) / data_std,
        mean_gain=_mean_gain(vectors, codebook, found),
    )


def _mean_gain(vectors: Rows, codebook: Rows, found: Assignment) -> float:
    """Return the share of the squared error that is gone once each code is the mean of its vectors.

    By the parallel axis theorem it is n |e - mean|² of each code's n vectors.
    """
    total = float(np.sum(found.vector_distance**2))
    counts, means = code_means(vectors, found.indices, len(codebook))
    apart = np.square(codebook - means).sum(axis=1)
    return float((counts * apart).sum()) / total if total > 0 else 0.0


def _distances(left: Rows, right: Rows, chosen: Ints) -> Floats:
    """Distances of the rows of `left` [N, D] to the chosen rows [N] of `right`, in blocks that stay small."""
    blocks = [row_norms(left[i : i + 8192] - right[chosen[i : i + 8192]]) for i in range(0, len(left), 8192)]
    return np.concatenate(blocks) if blocks else np.zeros(0)
