"""Codes that a model looks up itself, outside any VQ layer, shown as calls of a module.

A model may keep its codebooks in an `nn.ParameterList`, or in embeddings of its own, and write the whole
quantizer into its forward: compare vectors with a table, choose one row for each vector, look the rows up.
No module has z_e for its input and z_q for its output then. So a working copy gets a stand-in for such a
layer beside its table, and while the task runs every lookup of the table passes through the stand-in.
Whatever watches or changes the calls of a VQ layer works on it as well.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from vqdoctor.core.frozen import frozen
from vqdoctor.models.tensors import tensors_of

_SUFFIX = "_lookup"
_KEPT = 2
"""Latest tensors that were compared with a table which are kept until its codes are looked up."""
_FACTORS = (1, 2, -2, -1)
"""Factors of the vectors in a comparison with codes."""
_ORIGIN = "_vqdoctor_origin"
"""Attribute of a tensor: the only other tensor that it was made of."""


class Lookup(nn.Module):
    """The stand-in of a VQ layer: vectors in, the codes that the model itself looked up for them out."""

    def __init__(self) -> None:
        """Make a stand-in that has seen no lookup yet."""
        super().__init__()
        self.table: list[torch.Tensor] = []  # in a list, so that it is no parameter of this module
        self.found: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, z_e: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the codes that were looked up, and their indices.

        Outside of the model's own lookup these are the nearest ones, [..., D] in, [..., D] and [...] out.
        """
        if self.found:
            return self.found.pop()
        table = self.table[0]
        indices = torch.cdist(z_e.flatten(0, -2), table.to(z_e)).argmin(-1).view(z_e.shape[:-1])
        return table[indices], indices


def attach(model: nn.Module, name: str) -> str:
    """Put a stand-in beside a table of a working copy, if there is none yet, and return its path."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    if leaf + _SUFFIX not in module._modules:
        module.add_module(leaf + _SUFFIX, Lookup())
    return f"{owner}.{leaf}{_SUFFIX}" if owner else leaf + _SUFFIX


@contextlib.contextmanager
def lookups_shown(model: nn.Module) -> Iterator[None]:
    """Let the lookups of tables with a stand-in pass through it; without one nothing changes."""
    watched = []
    for path, module in model.named_modules():
        if isinstance(module, Lookup):
            owner, _, leaf = path.rpartition(".")
            module.table = [getattr(model.get_submodule(owner), leaf.removesuffix(_SUFFIX))]
            watched.append(_Table(table=module.table[0], show=module))
    with _Watching(watched) if watched else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def lookups_found(tables: Mapping[str, torch.Tensor]) -> Iterator[dict[str, Found]]:
    """Find the tables whose rows a model chooses by comparing vectors with them.

    Args:
        tables: name to matrix [K, D], the model's own tensor.

    Yields:
        name to the first lookup, filled while the context lasts.
    """
    found: dict[str, Found] = {}
    watched = [_Table(table=table, first=partial(found.setdefault, name)) for name, table in tables.items()]
    with _Watching(watched):
        yield found


@frozen
class Found:
    """One lookup: the vectors [..., D], their codes [..., D] and the indices [...]."""

    z_e: torch.Tensor
    z_q: torch.Tensor
    indices: torch.Tensor


@dataclass(kw_only=True, eq=False)
class _Table:
    """A table, and what was made of it alone in this pass."""

    table: torch.Tensor
    show: Lookup | None = None
    first: Callable[[Found], object] | None = None
    asked: deque[torch.Tensor] = field(default_factory=lambda: deque(maxlen=_KEPT))
    answered: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def look_up(self, indices: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return the codes that the model gets for these indices."""
        if id(indices) in self.answered:  # the same codes again, as for the loss
            return self.answered[id(indices)][1]
        vectors = next((t for t in reversed(self.asked) if t.numel() == codes.numel()), None)
        if vectors is None:
            return codes
        z_e = vectors.reshape(codes.shape)  # the model may go on with what this is a view or a copy of
        z_e = next((t for t in reversed(origins(vectors)) if _same(t, z_e)), z_e)
        if self.first is not None:
            self.first(Found(z_e=z_e.detach(), z_q=codes.detach(), indices=indices))
        if self.show is not None:
            self.show.found = [(codes, indices.view(codes.shape[:-1]))]
            codes = self.show(z_e)[0]
        self.answered[id(indices)] = indices, codes
        return codes


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are the same, or the other one is the first in a type of lower precision.

    The factor of |z - e|² = |z|² - 2ze + |e|² may be in the other one, as in `2 * z @ e.T`; it is exact.
    """
    if one.shape != other.shape:
        return False
    return any(torch.equal((factor * one).to(other.dtype), other) for factor in _FACTORS)


def origins(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return the tensor, then what it was made of, step by step, as far as each was made of one alone."""
    found = [tensor]
    while (made_of := getattr(found[-1], _ORIGIN, None)) is not None:
        found.append(made_of)
    return found


class _Watching(TorchFunctionMode):
    """Follows the tables, the choices of one row among K, and the lookups of these rows."""

    def __init__(self, tables: list[_Table]) -> None:
        super().__init__()
        self._of = {id(table.table): table for table in tables}
        self._alive: list[torch.Tensor] = [table.table for table in tables]  # no id is used again
        # id of indices, or of their one-hot rows, to the indices, and of how many rows they choose one
        self._chosen: dict[int, tuple[torch.Tensor, int]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        given = list(tensors_of((args, kwargs or {})))
        made = [t for t in tensors_of(output) if not any(t is one for one in given)]
        if not given or not made:
            return output
        own = [table for t in given if (table := self._of.get(id(t))) is not None]
        choice = next((found for t in given if (found := self._chosen.get(id(t))) is not None), None)
        if own and choice is not None:
            (indices, options), (codes, dim) = choice, own[0].table.shape
            if options == codes and made[0].is_floating_point() and made[0].numel() == indices.numel() * dim:
                return own[0].look_up(indices, made[0])
        elif own and len(own) == len(given):
            self._keep(made, own[0])
        elif own:
            self._compared(own[0], given)
        elif len(given) == 1 or choice is not None:
            self._follow(given[0], made, choice)
        return output

    def _keep(self, made: list[torch.Tensor], table: _Table) -> None:
        self._alive += made
        self._of.update((id(t), table) for t in made)

    def _compared(self, table: _Table, given: list[torch.Tensor]) -> None:
        dim = table.table.shape[-1]
        table.asked.extend(
            t
            for t in given
            if id(t) not in self._of and t.is_floating_point() and t.ndim > 1 and t.shape[-1] == dim
        )

    def _follow(
        self, given: torch.Tensor, made: list[torch.Tensor], choice: tuple[torch.Tensor, int] | None
    ) -> None:
        """Follow a choice through changes of its form, and note what a tensor was made of."""
        for tensor in made:
            if choice is not None:
                indices, options = choice
                if tensor.numel() in (indices.numel(), indices.numel() * options):
                    self._choose(tensor, tensor if tensor.numel() == indices.numel() else indices, options)
            elif tensor.is_floating_point():
                setattr(tensor, _ORIGIN, given)
            elif tensor.dtype == torch.int64 and 0 < tensor.numel() < given.numel():
                self._choose(tensor, tensor, given.numel() // tensor.numel())

    def _choose(self, tensor: torch.Tensor, indices: torch.Tensor, options: int) -> None:
        self._alive.append(tensor)
        self._chosen[id(tensor)] = indices, options
