"""Tables of codes among all tensors of a model, told by the vectors that a module puts out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn
from torch.nn import functional

from vqdoctor.core.frozen import frozen

_OF_SPREAD = 256
"""Rows of which the spread of a table is taken."""
_ROUNDING = 1e-3
"""Difference of a length from one that is rounding."""
_FIRST = 4
"""Numbers of a vector by which a table is ruled out."""


@frozen
class Held:
    """The tensor that holds a layer's codes.

    Attributes:
        name: its name in the state dict.
        transposed: whether the codes are its columns.
        heads: how many tables of one shape it holds, each for a part of a vector; None for one table [K, D].
        head_axis: the axis of these, 0 of [H, K, D] or 1 of [K, H, D].
    """

    name: str
    transposed: bool = False
    heads: int | None = None
    head_axis: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """The matrices of a model and its stacks of them, each as a table of its rows and of its columns.

    Attributes:
        model: the model.
    """

    model: nn.Module
    _near: dict[tuple[str, bool], torch.Tensor] = field(default_factory=dict)

    def holding(self, vectors: torch.Tensor, rows: int, path: str, *, inside: bool = False) -> Held | None:
        """Return the tensor that all vectors are rows (or columns) of; None if none is.

        Vectors of length one may also be the directions of its rows.

        Args:
            vectors: float [N, D].
            rows: the least rows of a single table.
            path: of the module that puts them out: of equal matrices, its own one is meant.
            inside: whether only the module's own ones count.
        """
        dim, saved, own = vectors.shape[1], self.model.state_dict(), f"{path}."
        unit = bool(((vectors.norm(dim=1) - 1).abs() <= _ROUNDING).all())
        for name in sorted(saved, key=lambda name: not name.startswith(own)):
            tensor = saved[name]
            if inside and not name.startswith(own):
                break
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
                directions = functional.normalize(table) if unit else table
                if are_rows(vectors, table, self._near[key]) or (unit and are_rows(vectors, directions)):
                    return Held(name=name, transposed=transposed)
        return self._stack(vectors, own if inside else "")

    def _stack(self, vectors: torch.Tensor, under: str) -> Held | None:
        """Return the stack [H, K, D] whose tables hold the parts of all vectors [N, H · D], or None."""
        for held, stack in self._stacks(vectors.shape[1], under):
            if are_stacked(vectors, stack):
                return held
        return None

    def _stacks(self, width: int, under: str) -> Iterator[tuple[Held, torch.Tensor]]:
        """Yield the stacks under such a name, as [H, K, D], for vectors of a width H · D."""
        for name, stored in self._deep.items():
            for transposed, axis in ((False, 0), (True, 0), (False, 1)):
                stack = stored.transpose(1, 2) if transposed else stored.movedim(axis, 0)
                heads, codes, dim = stack.shape
                if heads * dim == width and min(heads, codes, dim) > 1 and name.startswith(under):
                    yield Held(name=name, transposed=transposed, heads=heads, head_axis=axis), stack

    def holds_parts(self, vectors: torch.Tensor, path: str) -> bool:
        """Whether vectors [N, any] are made of rows of one table of the module at that path, side by side."""
        own = (t for name, t in self.model.state_dict().items() if name.startswith(f"{path}."))
        tables = (t.detach().float().cpu() for t in own if t.ndim == 2 and t.is_floating_point())
        size = vectors.shape[1]
        parted = (table for table in tables if 1 < (width := table.shape[1]) < size and size % width == 0)
        return any(are_rows(vectors.reshape(-1, table.shape[1]), table) for table in parted)

    def unsaved_codes(self, vectors: torch.Tensor) -> int | None:
        """Return how many codes the unsaved table has that holds all vectors [N, D]; None without one."""
        for _, table in unsaved(self.model):
            fits = table.shape[1] == vectors.shape[1]
            if fits and are_rows(vectors, table.detach().float().cpu()):
                return len(table)
        return None

    @cached_property
    def _deep(self) -> dict[str, torch.Tensor]:
        saved = self.model.state_dict().items()
        return {name: t.detach() for name, t in saved if t.ndim == 3 and t.is_floating_point()}


def unsaved(model: nn.Module, *, stacks: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and table [K, D] of the matrices that a model holds and its state dict leaves out.

    With stacks [H, K, D] or [K, H, D] these too.

    A `weight` beside a parameter `weight_v`, `weight_orig` or the like is computed from that one.
    """
    for path, module in model.named_modules():
        buffers = {name: module._buffers.get(name) for name in module._non_persistent_buffers_set}
        for name, tensor in {**vars(module), **buffers}.items():
            computed = any(other.startswith(f"{name}_") for other in module._parameters)
            is_tensor = isinstance(tensor, torch.Tensor) and not computed
            if is_tensor and tensor.ndim in (2, 3 if stacks else 2) and tensor.is_floating_point():
                yield (f"{path}.{name}" if path else name), tensor


def are_stacked(vectors: torch.Tensor, stack: torch.Tensor) -> bool:
    """Return whether the parts of all vectors [N, H · D] are rows of the tables of a stack [H, K, D]."""
    parts = vectors.reshape(len(vectors), len(stack), -1).unbind(1)
    return all(are_rows(part, table.float().cpu()) for part, table in zip(parts, stack, strict=True))


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
