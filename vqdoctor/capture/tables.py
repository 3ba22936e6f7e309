"""Tables of codes among all matrices of a model, told by the vectors that a module puts out."""

from __future__ import annotations

import torch

_OF_SPREAD = 256
"""Rows of which the spread of a table is taken."""
_FIRST = 4
"""Numbers of a vector by which a table is ruled out."""


def are_rows(vectors: torch.Tensor, table: torch.Tensor) -> bool:
    """Return whether every vector is a row of a table within rounding, [N, D] and [K, D].

    Distances are not computed as x² - 2xy + y², which loses the digits that tell a code from its neighbour.
    """
    sample = table[:: max(1, len(table) // _OF_SPREAD)]
    near = 1e-3 * sample.std().clamp_min(1e-12) * table.shape[1] ** 0.5
    # a few numbers of the first vector tell nearly all tables that are none
    begins = torch.linalg.vector_norm(table[:, :_FIRST] - vectors[0, :_FIRST], dim=1) <= near
    if not bool(begins.any()):
        return False
    distances = torch.cdist(vectors, table, compute_mode="donot_use_mm_for_euclid_dist")
    return bool((distances.amin(dim=1) <= near).all())
