"""Tables of codes among all matrices of a model, told by the vectors that a module puts out."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

_OF_SPREAD = 256
"""Rows of which the spread of a table is taken."""
_FIRST = 4
"""Numbers of a vector by which a table is ruled out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """The matrices of a model, each as a table of its rows and of its columns.

    Attributes:
        model: the model.
    """

    model: nn.Module
    _near: dict[tuple[str, bool], torch.Tensor] = field(default_factory=dict)

    def holding(self, vectors: torch.Tensor, rows: int, path: str) -> tuple[str, bool] | None:
        """Return the name of the matrix that all vectors are rows (or columns, True) of; None if none is.

        Args:
            vectors: float [N, D].
            rows: the least rows of the table.
            path: of the module that puts them out: of equal matrices, its own one is meant.
        """
        dim, matrices = vectors.shape[1], self.model.state_dict()
        for name in sorted(matrices, key=lambda name: not name.startswith(f"{path}.")):
            tensor = matrices[name]
            if tensor.ndim != 2 or not tensor.is_floating_point() or dim not in tensor.shape:
                continue
            for transposed in (False, True):
                table = tensor.detach().float().cpu()
                table = table.T if transposed else table
                if table.shape[1] != dim or len(table) < rows:
                    continue
                key = (name, transposed)
                if key not in self._near:
                    self._near[key] = near(table)
                if are_rows(vectors, table, self._near[key]):
                    return name, transposed
        return None

    def in_parts(self, vectors: torch.Tensor) -> tuple[str, int] | None:
        """Return the name of the tensor of several tables that the parts of all vectors are rows of, or None.

        A product quantizer puts its codes side by side: the first D numbers are a row of its first table, and
        so on.

        Args:
            vectors: float [N, G · D].

        Returns:
            The name, and the axis of the G tables, 0 of [G, K, D] or 1 of [K, G, D].
        """
        for name, tensor in self.model.state_dict().items():
            if tensor.ndim != 3 or not tensor.is_floating_point():
                continue
            dim = tensor.shape[-1]
            for axis in (0, 1):
                groups, codes = tensor.shape[axis], tensor.shape[1 - axis]
                if groups < 2 or codes < 2 or groups * dim != vectors.shape[1]:
                    continue
                tables, parts = tensor.detach().float().cpu().unbind(axis), torch.split(vectors, dim, dim=1)
                if all(map(are_rows, parts, tables)):
                    return name, axis
        return None


def near(table: torch.Tensor) -> torch.Tensor:
    """Return the distance within which a vector is a row of a table [K, D]."""
    sample = table[:: max(1, len(table) // _OF_SPREAD)]
    found: torch.Tensor = 1e-3 * sample.std().clamp_min(1e-12) * table.shape[1] ** 0.5
    return found


def are_rows(vectors: torch.Tensor, table: torch.Tensor, within: torch.Tensor | None = None) -> bool:
    """Return whether every vector is a row of a table within rounding, [N, D] and [K, D].

    Distances are not computed as x² - 2xy + y², which loses the digits that tell a code from its neighbour.
    """
    within = near(table) if within is None else within
    # a few numbers of the first vector tell nearly all tables that are none
    begins = torch.linalg.vector_norm(table[:, :_FIRST] - vectors[0, :_FIRST], dim=1) <= within
    if not bool(begins.any()):
        return False
    distances = torch.cdist(vectors, table, compute_mode="donot_use_mm_for_euclid_dist")
    return bool((distances.amin(dim=1) <= within).all())
