"""Codes that a model looks up itself, outside any VQ layer, shown as calls of a module.

A model may keep its codebooks in an `nn.ParameterList`, or in embeddings of its own, and write the whole
quantizer into its forward: compare vectors with a table, choose one row for each vector, look the rows up.
No module has z_e for its input and z_q for its output then. So a working copy gets a stand-in for such a
layer beside its table, and while the task runs every lookup of the table passes through the stand-in.
Whatever watches or changes the calls of a VQ layer works on it as well.

A model may also flatten a feature map for the lookup, and write the straight-through estimator on the map. In
training the estimator passes through the stand-in in place of such a lookup, which gets no gradient.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from vqdoctor.core.frozen import frozen
from vqdoctor.models.origins import changed_alike, note_origin, note_step, origins
from vqdoctor.models.tensors import tensors_of

_SUFFIX = "_lookup"
_KEPT = 3
"""Latest tensors that were compared with a table which are kept until its codes are looked up."""
_PARTS = ("__getitem__", "select", "narrow", "unbind", "chunk", "split", "expand", "expand_as", "repeat")
"""Functions that take a part of the indices, or repeat them."""
_FACTORS = (1, 2, -2, -1)
"""Factors of the vectors in a comparison with codes."""
_ROUNDING = 1e-4
"""Difference of an estimator's output and the codes, as a share of the largest value in it: rounding."""
_ASKED = "_vqdoctor_asked"
"""Attribute of the distances to the codes of a stack: the vectors that were compared with these."""
_LOGITS = "_vqdoctor_logits"
"""Attribute of the weights of a Gumbel-softmax: the logits that they were drawn from."""


class Lookup(nn.Module):
    """The stand-in of a VQ layer: vectors in, the codes that the model itself looked up for them out.

    Of a Gumbel layer it is logits in; in training it is what the model mixes of its codes out.
    """

    def __init__(self, table: torch.Tensor, *, by_logits: bool, around: bool, transposed: bool) -> None:
        """Make a stand-in for a table [K, D], or [D, K], that has seen no lookup yet."""
        super().__init__()
        self.table = [table]  # in a list, so that it is no parameter of this module
        self.by_logits, self.around, self.transposed = by_logits, around, transposed
        self.found: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, z_e: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the codes that were looked up, and their indices.

        Outside of the model's own lookup these are the nearest ones, [..., D] in, [..., D] and [...] out; of
        a Gumbel layer those of the largest logits.
        """
        if self.found:
            return self.found.pop()
        table = self.table[0].T if self.transposed else self.table[0]
        if self.by_logits:
            axis = _axis_of_logits(z_e, len(table))
            indices = z_e.argmax(axis)
            return table[indices].movedim(-1, axis), indices
        indices = torch.cdist(z_e.flatten(0, -2), table.to(z_e)).argmin(-1).view(z_e.shape[:-1])
        return table[indices], indices


def _axis_of_logits(logits: torch.Tensor, codes: int) -> int:
    """Return the axis of K logits: that of channels, as torch's images have it, or else the last."""
    return 1 if logits.ndim > 2 and logits.shape[1] == codes else logits.ndim - 1


def attach(
    model: nn.Module, name: str, *, by_logits: bool = False, around: bool = False, transposed: bool = False
) -> str:
    """Put a stand-in beside a table of a working copy, if there is none yet, and return its path.

    Args:
        model: the copy.
        name: the table's name.
        by_logits: whether logits choose its rows.
        around: whether, in training, the stand-in shows the estimator around the lookup.
        transposed: whether its columns are the codes.
    """
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    if leaf + _SUFFIX not in module._modules:
        form = {"by_logits": by_logits, "around": around, "transposed": transposed}
        stand_in = Lookup(getattr(module, leaf), **form)
        module.add_module(leaf + _SUFFIX, stand_in.train(module.training))
    return stand_in_of(name)


def stand_in_of(name: str) -> str:
    """Return the path of a table's stand-in."""
    return name + _SUFFIX


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
def lookups_found(
    tables: Mapping[str, torch.Tensor], also: Literal["logits", "mixtures"] | None = None
) -> Iterator[dict[str, Found]]:
    """Find the tables whose rows a model chooses by comparing vectors with them.

    Args:
        tables: name to matrix [K, D], [D, K], or stack [H, K, D], [K, H, D], the model's own tensor.
        also: what counts too: the row of the largest of K logits, whatever these are made of; or a mixture
            of the rows by a Gumbel-softmax.

    Yields:
        name to the first lookup, filled while the context lasts.
    """
    found: dict[str, Found] = {}
    watched = [
        _Table(table=table, first=partial(found.setdefault, name), also=also)
        for name, table in tables.items()
    ]
    with _Watching(watched):
        yield found


@frozen
class Found:
    """One lookup: the vectors [..., D], their codes [..., D] and the indices [...].

    By logits it is the logits [..., K, ...], with codes or a mixture of codes [..., D, ...].
    """

    z_e: torch.Tensor
    z_q: torch.Tensor
    indices: torch.Tensor
    by_logits: bool = False


@dataclass(kw_only=True, eq=False)
class _Table:
    """A table, and what was made of it alone in this pass.

    A lookup may be answered without a graph, as in a custom function, and asked again with one for the loss.
    """

    table: torch.Tensor
    show: Lookup | None = None
    also: str | None = None
    first: Callable[[Found], object] | None = None
    asked: deque[torch.Tensor] = field(default_factory=lambda: deque(maxlen=_KEPT))
    answered: dict[int, tuple[torch.Tensor, torch.Tensor, bool]] = field(default_factory=dict)
    waiting: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def holds(self, choice: _Choice, made: torch.Tensor) -> bool:
        """Whether what was made may be this table's rows for a choice."""
        *codes, dim = self.table.shape
        if not made.is_floating_point():
            return False
        if choice.options not in codes:  # its columns may be the codes, [D, K]
            columns = choice.part is None and codes == [made.shape[-1]] and choice.options == dim
            return columns and made.numel() == choice.indices.numel() * codes[0]
        if choice.part is None:
            return made.numel() == choice.indices.numel() * dim
        return len(codes) > 1 and made.numel() in (choice.part.numel(), choice.part.numel() * dim)

    def look_up_part(self, choice: _Choice, codes: torch.Tensor) -> None:
        """Note the codes of a stack that the model gets for a part of its vectors, as for one head.

        The part may name each number of a code, as `torch.gather` has it.
        """
        assert choice.part is not None
        dim = self.table.shape[-1]
        part = choice.part.flatten()[:: choice.part.numel() * dim // codes.numel()]
        whole = choice.indices.numel() * dim
        vectors = next((t for t in reversed(self.asked) if t.numel() == whole), None)
        if vectors is not None and self.first is not None:
            z_e = vectors.detach().reshape(-1, dim)[part]
            self.first(Found(z_e=z_e, z_q=codes.detach().reshape(-1, dim), indices=part))

    def look_up(
        self, indices: torch.Tensor, codes: torch.Tensor, scores: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the codes that the model gets for indices, which may be those of the largest scores."""
        if id(indices) in self.answered:  # the same codes again
            _, again, recorded = self.answered[id(indices)]
            return codes if torch.is_grad_enabled() and not recorded else again
        compared = None if scores is None else _compared_vectors(scores)
        asked = (*self.asked, *(() if compared is None else (compared,)))
        vectors = next((t for t in reversed(asked) if t.numel() == codes.numel()), None)
        if vectors is None:
            return codes if scores is None else self.by_logits(scores, codes, indices)
        z_e = vectors.reshape(codes.shape)  # the model may go on with what this is a view or a copy of
        z_e = next((t for t in reversed(origins(vectors)) if _same(t, z_e)), z_e)
        if self.first is not None:
            self.first(Found(z_e=z_e.detach(), z_q=codes.detach(), indices=indices))
        if self.show is not None and self.show.around and self.show.training:
            self.waiting = z_e, codes, indices
        elif self.show is not None:
            self.show.found = [(codes, indices.view(codes.shape[:-1]))]
            codes = self.show(z_e)[0]
        self.answered[id(indices)] = indices, codes, torch.is_grad_enabled()
        return codes

    def estimated(self, given: list[torch.Tensor], out: torch.Tensor) -> torch.Tensor | None:
        """Return the output of an estimator around the latest lookup as the model gets it, or None.

        An estimator is given what the vectors of the lookup were made of, and its output has that form, their
        gradient, and the values of the codes.
        """
        if self.waiting is None or self.show is None:
            return None
        z_e, codes, indices = self.waiting
        if not out.requires_grad or out.numel() != codes.numel() or not out.is_floating_point():
            return None
        for at in origins(z_e)[::-1]:
            beside = at.shape == out.shape and at.requires_grad and any(t is at for t in given)
            if beside and (flat := changed_alike(z_e, at, out.detach())) is not None and _near(flat, codes):
                self.waiting = None
                self.show.found = [(out, indices)]
                shown: torch.Tensor = self.show(at)[0]
                return shown
        return None

    def by_logits(
        self, logits: torch.Tensor, codes: torch.Tensor, indices: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the model's codes for logits, or in training its mixture of codes."""
        if self.table.ndim > 2:
            return codes
        axis = _axis_of_logits(logits, len(self.table))
        largest = logits.argmax(axis)
        if logits.shape[axis] != len(self.table) or codes.numel() != largest.numel() * self.table.shape[1]:
            return codes
        if indices is not None and not torch.equal(largest.flatten(), indices.flatten()):
            return codes
        if self.first is not None and self.also == ("mixtures" if indices is None else "logits"):
            self.first(Found(z_e=logits.detach(), z_q=codes.detach(), indices=largest, by_logits=True))
        if self.show is not None and self.show.by_logits:
            self.show.found = [(codes, largest)]
            codes = self.show(logits)[0]
        return codes


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are the same, or the other one is the first in a type of lower precision.

    The factor of |z - e|² = |z|² - 2ze + |e|² may be in the other one, as in `2 * z @ e.T`; it is exact.
    """
    if one.shape != other.shape:
        return False
    return any(torch.equal((factor * one).to(other.dtype), other) for factor in _FACTORS)


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    apart = (one - other.detach()).abs().max()
    return one.shape == other.shape and bool(apart <= _ROUNDING * one.abs().max())


def _compared_vectors(scores: torch.Tensor) -> torch.Tensor | None:
    """Return the vectors that scores are the distances of to the codes of a stack; None where unknown."""
    return next((v for t in origins(scores) if (v := getattr(t, _ASKED, None)) is not None), None)


@frozen
class _Choice:
    """A choice of one row for each vector.

    Attributes:
        indices: the rows.
        options: of how many.
        scores: the numbers that decided it.
        part: the places of the remaining indices among all, where the model took a part.
    """

    indices: torch.Tensor
    options: int
    scores: torch.Tensor
    part: torch.Tensor | None = None


class _Watching(TorchFunctionMode):
    """Follows the tables, the choices of one row among K, and the lookups of these rows."""

    def __init__(self, tables: list[_Table]) -> None:
        super().__init__()
        self._of = {id(table.table): table for table in tables}
        self._shown = [table for table in tables if table.show is not None and table.show.around]
        self._alive: list[torch.Tensor] = [table.table for table in tables]  # no id is used again
        self._chosen: dict[int, _Choice] = {}  # by the id of the indices, or of their one-hot rows
        self._stacks = any(table.table.ndim > 2 for table in tables)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        given = list(tensors_of((args, kwargs or {})))
        made = [t for t in tensors_of(output) if not any(t is one for one in given)]
        if not given or not made:
            return output
        for stood_in in self._shown:
            if output is made[0] and (shown := stood_in.estimated(given, output)) is not None:
                return shown
        own = [table for t in given if (table := self._of.get(id(t))) is not None]
        choice = next((found for t in given if (found := self._chosen.get(id(t))) is not None), None)
        if func is functional.gumbel_softmax:
            setattr(made[0], _LOGITS, given[0])
        elif own and choice is not None:
            if not own[0].holds(choice, made[0]):
                return output
            if choice.part is None:
                return own[0].look_up(choice.indices, made[0], choice.scores)
            own[0].look_up_part(choice, made[0])
        elif own and len(own) == len(given):
            self._keep(made, own[0])
        elif own and (logits := _logits_of(given)) is not None:
            return own[0].by_logits(logits, made[0])
        elif own:
            self._compared(own[0], given)
            if own[0].table.ndim > 2 and own[0].asked:
                setattr(made[0], _ASKED, own[0].asked[-1])
        elif len(given) == 1 or choice is not None:
            self._follow(given[0], made, choice)
            if args and args[0] is given[0]:
                note_step(made, lambda other: func(other, *args[1:], **(kwargs or {})))
            if choice is not None and self._stacks:
                self._follow_part(func, args, kwargs or {}, output, choice)
        return output

    def _keep(self, made: list[torch.Tensor], table: _Table) -> None:
        self._alive += made
        self._of.update((id(t), table) for t in made)

    def _compared(self, table: _Table, given: list[torch.Tensor]) -> None:
        shape = table.table.shape
        dims = shape if len(shape) == 2 else shape[-1:]
        table.asked.extend(
            t
            for t in given
            if id(t) not in self._of and t.is_floating_point() and t.ndim > 1 and t.shape[-1] in dims
        )

    def _follow(self, given: torch.Tensor, made: list[torch.Tensor], choice: _Choice | None) -> None:
        """Follow a choice through changes of its form, and note what a tensor was made of."""
        for tensor in made:
            if choice is not None:
                indices, options = choice.indices, choice.options
                if tensor.numel() in (indices.numel(), indices.numel() * options):
                    indices = tensor if tensor.numel() == indices.numel() else indices
                    self._choose(tensor, _Choice(indices=indices, options=options, scores=choice.scores))
            elif tensor.is_floating_point():
                note_origin(tensor, given)
            elif tensor.dtype == torch.int64 and 0 < tensor.numel() < given.numel():
                options = given.numel() // tensor.numel()
                self._choose(tensor, _Choice(indices=tensor, options=options, scores=given))

    def _follow_part(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, choice: _Choice
    ) -> None:
        """Follow a choice of which a part is taken, or which is repeated: do the same to the places."""
        if getattr(func, "__name__", "") not in _PARTS or len(list(tensors_of((args, kwargs)))) != 1:
            return
        count = choice.indices.numel()
        part = torch.arange(count, device=choice.indices.device) if choice.part is None else choice.part
        if part.numel() != args[0].numel():
            return  # one-hot rows
        places = func(part.view(args[0].shape), *args[1:], **kwargs)
        for tensor, place in zip(tensors_of(output), tensors_of(places), strict=True):
            if place.numel() != count:
                self._choose(tensor, replace(choice, part=place))

    def _choose(self, tensor: torch.Tensor, choice: _Choice) -> None:
        self._alive.append(tensor)
        self._chosen[id(tensor)] = choice


def _logits_of(given: list[torch.Tensor]) -> torch.Tensor | None:
    """Return the logits of a Gumbel-softmax whose weights are among these tensors; None without one."""
    made_of = (origin for tensor in given for origin in origins(tensor))
    found = (getattr(origin, _LOGITS, None) for origin in made_of)
    return next((logits for logits in found if logits is not None), None)
