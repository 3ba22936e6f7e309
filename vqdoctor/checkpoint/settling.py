"""From what a pickle built to a tree that is safe to walk: no cycles, few levels, few repetitions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vqdoctor.checkpoint.budget import Budget
from vqdoctor.checkpoint.dtypes import DTYPES
from vqdoctor.checkpoint.files import FEWER, Damaged
from vqdoctor.checkpoint.tensor import LazyTensor
from vqdoctor.checkpoint.tree import Deferred, Global, Inert

MAX_DEPTH = 200
MAX_REPEATED = 100_000
"""Nodes that may be there a second time, through sharing: sixty lists can stand for 2^60 nodes."""
MAX_INT_BITS = 1000
"""Larger integers overflow a float; real settings are smaller."""
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
_TOO_OFTEN = "shared too often"

_LEAVES = frozenset({str, float, int, bool, type(None), LazyTensor})


def settle(root: Any, budget: Budget | None = None) -> tuple[Any, tuple[str, ...]]:
    """Copy what a pickle built into a tree that is safe to walk, even by plain recursion.

    The copy has no cycles (an object inside itself becomes None), at most 200 levels, and few
    repetitions; its leaves are str, int, float, bool, None, `LazyTensor` and `Inert`.

    Args:
        root: what the pickle built.
        budget: the containers that it may have, and where they are taken from.

    Returns:
        The tree, and a note for every kind of thing that was cut out (and is None in the tree).

    Raises:
        Damaged: if it has too many containers.
    """
    copier = _Copier(budget=budget or Budget())
    tree = copier.copied(root)
    return tree, tuple(f"objects {why} were left out: {n}" for why, n in copier.cuts.items() if n)


@dataclass(slots=True)
class _Copying:
    """A container of which `settle` has copied the first few children.

    Attributes:
        source: the container.
        slot: its key, index or attribute in the container around it.
        todo: its slots and children still to be copied.
        copy: the copy so far.
        nodes: nodes below it, those that are shared counted every time.
        repeated: how many of them are repetitions.
    """

    source: object
    slot: object
    todo: Iterator[tuple[Any, Any]]
    copy: Any
    nodes: int = 1
    repeated: int = 0

    def put(self, slot: Any, value: Any, nodes: int = 1, repeated: int = 0) -> None:
        """Take in a finished child."""
        self.nodes += nodes
        self.repeated += repeated
        if isinstance(self.copy, dict):
            self.copy[slot] = value
        elif isinstance(self.copy, Inert):
            setattr(self.copy, slot, () if slot == "args" and not isinstance(value, tuple) else value)
        else:
            self.copy.append(value)


@dataclass(kw_only=True)
class _Copier:
    """One copy of one tree.

    Attributes:
        budget: the containers that may still come.
        cuts: what was cut out, and how often.
        done: id of a finished container to its copy and the nodes in it.
        unfinished: ids of those around the current one.
        stack: those around the current one, the root first.
    """

    budget: Budget
    cuts: dict[str, int] = field(default_factory=lambda: {_TOO_DEEP: 0, _TOO_OFTEN: 0})
    done: dict[int, tuple[Any, int]] = field(default_factory=dict)
    unfinished: set[int] = field(default_factory=set)
    stack: list[_Copying] = field(default_factory=list)

    def copied(self, root: Any) -> Any:
        """Return the copy of a tree."""
        top = _Copying(None, None, iter([(0, root)]), [])
        self.stack.append(top)
        while self.stack:
            frame = self.stack[-1]
            for slot, node in frame.todo:
                child = node.value if isinstance(node, Deferred) else node
                if not isinstance(child, dict | list | tuple | Inert | Global):
                    frame.put(slot, _leaf(child))
                elif self._entered(frame, slot, child):
                    break
            else:
                self.stack.pop()
                if self.stack:
                    self._finish(frame, self.stack[-1])
        return top.copy[0]

    def _entered(self, frame: _Copying, slot: object, child: Any) -> bool:
        """Copy a container that is quickly copied, and return False; else begin with it, and return True."""
        self.budget.containers -= 1
        if self.budget.containers < 0:
            raise Damaged("its pickle holds more lists and dicts than a file of its size can use", FEWER)
        known = id(child)
        if isinstance(child, Global):
            frame.put(slot, _leaf(child))
        elif known in self.unfinished:
            frame.put(slot, None)
        elif known in self.done:
            copy, nodes = self.done[known]
            self._put(frame, slot, copy, nodes, nodes)
        elif len(self.stack) > MAX_DEPTH:
            self.cuts[_TOO_DEEP] += 1
            frame.put(slot, None)
        elif (flat := _flat_copy(child)) is not None:
            self.done[known] = flat, len(flat) + 1
            frame.put(slot, flat, len(flat) + 1)
        else:
            self.unfinished.add(known)
            self.stack.append(_begin(child, slot))
            return True
        return False

    def _finish(self, frame: _Copying, around: _Copying) -> None:
        copy = tuple(frame.copy) if isinstance(frame.source, tuple) else frame.copy
        self.unfinished.discard(id(frame.source))
        self.done[id(frame.source)] = copy, frame.nodes
        self._put(around, frame.slot, copy, frame.nodes, frame.repeated)

    def _put(self, frame: _Copying, slot: object, copy: Any, nodes: int, repeated: int) -> None:
        """Put a copy in its place; None where too much of it is there already."""
        if frame.repeated + repeated > MAX_REPEATED:
            self.cuts[_TOO_OFTEN] += 1
            frame.put(slot, None)
        else:
            frame.put(slot, copy, nodes, repeated)


def _flat_copy(source: Any) -> Any:
    """Return a copy of a container that holds leaves alone, and none that `_leaf` changes; else None."""
    kind = type(source)
    if kind not in (dict, list, tuple):
        return None
    values = source.values() if kind is dict else source
    kinds = set(map(type, values))
    if not kinds <= _LEAVES:
        return None
    if int in kinds and max(n.bit_length() for n in values if type(n) is int) > MAX_INT_BITS:
        return None
    return kind(source)


def _begin(source: Any, slot: Any) -> _Copying:
    if isinstance(source, dict):
        return _Copying(source, slot, iter(source.items()), {})
    if isinstance(source, Inert):
        parts = iter([("args", source.args), ("state", source.state)])
        return _Copying(source, slot, parts, Inert(source.module, source.name))
    return _Copying(source, slot, iter(enumerate(source)), [])


def _leaf(value: object) -> Any:
    if value is None or isinstance(value, str | float | LazyTensor):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= MAX_INT_BITS else Inert("builtins", "int")
    if isinstance(value, Global):
        is_dtype = value.module == "torch" and value.name in DTYPES
        return f"torch.{value.name}" if is_dtype else Inert(value.module, value.name)
    return Inert("builtins", type(value).__name__)
