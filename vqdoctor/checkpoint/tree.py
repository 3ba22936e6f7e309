"""The tree of a checkpoint: plain containers and values, tensors, and inert stand-ins for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vqdoctor.checkpoint.dtypes import DTYPES
from vqdoctor.checkpoint.files import Damaged
from vqdoctor.checkpoint.tensor import LazyTensor

MAX_DEPTH = 200
MAX_REPEATED = 100_000
"""Nodes that may be there a second time, through sharing: sixty lists can stand for 2^60 nodes."""
MAX_KEY_TEXT = 100_000_000
MAX_VIEWS = 4
"""How often the tensors of a file may show its bytes: a model, its averaged copy, and shared weights."""
FREE_VIEWS = 64 << 20
"""Bytes that tensors may show beyond that."""
MAX_LEFT_OUT = 10_000
MAX_INT_BITS = 1000
"""Larger integers overflow a float; real settings are smaller."""

_PARTS, _UNREAD = "its parts lie in the files of other processes", "its type is not read"
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
_TOO_OFTEN = "shared too often"
_MODULE_DICTS = frozenset({"_parameters", "_buffers", "_modules"})


@dataclass(slots=True, eq=False)
class Inert:
    """The stand-in of an object whose class is not plain data. Nothing was imported or called.

    Attributes:
        module: module of the class, as the file says ("argparse").
        name: name of the class or function ("Namespace").
        args: what the file passes to it.
        state: what the file would have put into its `__dict__`, or its items: a dict or list as
            a rule, None where there is none.
    """

    module: str
    name: str
    args: tuple[Any, ...] = ()
    state: object = None


@dataclass(frozen=True, slots=True)
class Global:
    """A name that a pickle refers to. It cannot be called, and nothing can be written to it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Deferred:
    """A node of a pickle whose value is known only later; `settle` puts the value there.

    Attributes:
        value: a leaf of the tree.
    """

    value: object = None


def children(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path segment, child) of a node of the tree; nothing for a leaf.

    The state of an `Inert` stands for the object itself, and a pickled `nn.Module` has its
    parameters, buffers and modules as children: so paths are those of its state dict.
    """
    if isinstance(node, dict):
        for key, child in node.items():
            yield str(key), child
    elif isinstance(node, list | tuple):
        for i, child in enumerate(node):
            yield str(i), child
    elif isinstance(node, Inert):
        for key, child in children(node.state):
            if key in _MODULE_DICTS and isinstance(child, dict):
                yield from children(child)
            else:
                yield key, child
        for i, child in enumerate(node.args):
            yield f"args.{i}", child


def walk(tree: object) -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, leaf) of every leaf, depth first, in file order, without recursion.

    Raises:
        Damaged: if the paths alone would fill the memory.
    """
    spent = 0
    stack: list[tuple[str, Iterator[tuple[str, Any]]]] = [("", iter([("", tree)]))]
    while stack:
        prefix, todo = stack[-1]
        for segment, node in todo:
            path = f"{prefix}.{segment}" if prefix else segment
            spent += len(path)
            if spent > MAX_KEY_TEXT:
                raise Damaged("its names are absurdly long")
            if isinstance(node, dict | list | tuple | Inert):
                stack.append((path, children(node)))
                break
            yield path, node
        else:
            stack.pop()


def left_out(tree: object) -> dict[str, str]:
    """Return the dotted path of each tensor that is not read, and why; without recursion."""
    found: dict[str, str] = {}
    todo: list[tuple[str, object]] = [("", tree)]
    while todo and len(found) < MAX_LEFT_OUT:
        path, node = todo.pop()
        if isinstance(node, Inert) and (node.module, node.name) == ("torch", "Tensor"):
            kind = node.args[0] if node.args else None
            is_part = isinstance(kind, Inert) and kind.name == "DTensor"
            found[path] = (
                "its parts lie in the files of other processes" if is_part else "its type is not read"
            )
        elif isinstance(node, dict | list | tuple | Inert):
            todo += [(f"{path}.{step}" if path else step, child) for step, child in children(node)]
    return found


def flatten(tree: object) -> dict[str, LazyTensor]:
    """Name every tensor by its dotted path and return them in file order.

    A path that is taken already gets "~2", a tensor under two paths gets two names.
    """
    tensors: dict[str, LazyTensor] = {}
    seen: dict[str, int] = {}
    for path, node in walk(tree):
        if isinstance(node, LazyTensor):
            key = path
            while key in tensors:
                seen[path] = seen.get(path, 1) + 1
                key = f"{path}~{seen[path]}"
            tensors[key] = node.named(key)
    _refuse_crowds(tensors)
    return tensors


def _refuse_crowds(tensors: Mapping[str, LazyTensor]) -> None:
    """Refuse a few bytes that are shown as many tensors, each of which would be read.

    Raises:
        Damaged: if all of them are far larger than what is stored.
    """
    shown = sum(tensor.nbytes for tensor in tensors.values())
    stored = sum({id(tensor.record): tensor.record.size for tensor in tensors.values()}.values())
    if shown > MAX_VIEWS * stored + FREE_VIEWS:
        raise Damaged(f"forged: its tensors show {shown >> 20:,} MiB, and it stores {stored >> 20:,} MiB")


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


def settle(root: Any) -> tuple[Any, tuple[str, ...]]:
    """Copy what a pickle built into a tree that is safe to walk, even by plain recursion.

    The copy has no cycles (an object inside itself becomes None), at most 200 levels, and few
    repetitions; its leaves are str, int, float, bool, None, `LazyTensor` and `Inert`.

    Returns:
        The tree, and a note for every kind of thing that was cut out (and is None in the tree).
    """
    cuts = {_TOO_DEEP: 0, _TOO_OFTEN: 0}
    done: dict[int, tuple[Any, int]] = {}
    unfinished: set[int] = set()
    top = _Copying(None, None, iter([(0, root)]), [])
    stack = [top]
    while stack:
        frame = stack[-1]
        for slot, node in frame.todo:
            child = node.value if isinstance(node, Deferred) else node
            if not isinstance(child, dict | list | tuple | Inert):
                frame.put(slot, _leaf(child))
            elif id(child) in unfinished:
                frame.put(slot, None)
            elif id(child) in done:
                copy, nodes = done[id(child)]
                if frame.repeated + nodes > MAX_REPEATED:
                    cuts[_TOO_OFTEN] += 1
                    frame.put(slot, None)
                else:
                    frame.put(slot, copy, nodes, nodes)
            elif len(stack) > MAX_DEPTH:
                cuts[_TOO_DEEP] += 1
                frame.put(slot, None)
            else:
                unfinished.add(id(child))
                stack.append(_begin(child, slot))
                break
        else:
            stack.pop()
            if frame is top:
                continue
            copy = tuple(frame.copy) if isinstance(frame.source, tuple) else frame.copy
            unfinished.discard(id(frame.source))
            done[id(frame.source)] = copy, frame.nodes
            if stack[-1].repeated + frame.repeated > MAX_REPEATED:
                cuts[_TOO_OFTEN] += 1
                stack[-1].put(frame.slot, None)
            else:
                stack[-1].put(frame.slot, copy, frame.nodes, frame.repeated)
    return top.copy[0], tuple(f"objects {why} were left out: {count}" for why, count in cuts.items() if count)


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
