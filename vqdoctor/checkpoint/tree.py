"""The tree of a checkpoint: plain containers and values, tensors, and inert stand-ins for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vqdoctor.checkpoint.files import Damaged
from vqdoctor.checkpoint.tensor import LazyTensor

MAX_KEY_TEXT = 100_000_000
MAX_NAME_WORK = 60_000_000
"""Characters that are looked at in names: 2.4 million for 1000 names of 100 characters in 8 parts."""
NAME_WORK_PER_BYTE = 0.6
"""More for a larger file: from 100 MB on."""
_LOOKS = 16
"""How often a name is looked at, besides its parts."""
MAX_VIEWS = 4
"""How often the tensors of a file may show its bytes: a model, its averaged copy, and shared weights."""
FREE_VIEWS = 64 << 20
"""Bytes that tensors may show beyond that."""
MAX_LEFT_OUT = 10_000

_PARTS, _UNREAD = "its parts lie in the files of other processes", "its type is not read"
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


_CONTAINERS: frozenset[type] = frozenset({dict, list, tuple, Inert})


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


def settings(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the `children` of a node; of a list, which may hold a million losses, only the containers."""
    return _kept(node, _CONTAINERS) if isinstance(node, list | tuple) else children(node)


def containers_in(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the containers among the `children` of a node."""
    return _kept(node, _CONTAINERS)


def _kept(node: Any, kinds: frozenset[type]) -> Iterator[tuple[str, Any]]:
    """Yield the children of some kinds; a leaf that is passed over costs next to nothing."""
    if isinstance(node, list | tuple):
        return ((str(i), child) for i, child in enumerate(node) if type(child) in kinds)
    if isinstance(node, dict):
        return ((str(key), child) for key, child in node.items() if type(child) in kinds)
    return ((segment, child) for segment, child in children(node) if type(child) in kinds)


def walk(
    tree: object, children: Callable[[Any], Iterator[tuple[str, Any]]] = children
) -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, leaf) of every leaf, depth first, in file order, without recursion.

    Args:
        tree: the root.
        children: yields the path segments and the children of a node.

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
            todo += [(f"{path}.{step}" if path else step, child) for step, child in containers_in(node)]
    return found


def flatten(tree: object) -> dict[str, LazyTensor]:
    """Name every tensor by its dotted path and return them in file order.

    A path that is taken already gets "~2", a tensor under two paths gets two names.
    """
    tensors: dict[str, LazyTensor] = {}
    seen: dict[str, int] = {}
    for path, tensor in walk(tree, partial(_kept, kinds=_CONTAINERS | {LazyTensor})):
        if isinstance(tensor, LazyTensor):
            key = path
            while key in tensors:
                seen[path] = seen.get(path, 1) + 1
                key = f"{path}~{seen[path]}"
            tensors[key] = tensor.named(key)
    stored = _refuse_crowds(tensors)
    refuse_long_names(tensors, stored)
    return tensors


def refuse_long_names(names: Iterable[str], size: int) -> None:
    """Refuse names that would keep every layout busy: it looks at each, and at each of its parts.

    Args:
        names: of all tensors.
        size: bytes of the file.

    Raises:
        Damaged: if they are far longer than those of a model of that size.
    """
    work = sum(len(name) * (_LOOKS + name.count(".")) for name in names)
    if work > max(MAX_NAME_WORK, size * NAME_WORK_PER_BYTE):
        raise Damaged("its names are absurdly long")


def _refuse_crowds(tensors: Mapping[str, LazyTensor]) -> int:
    """Refuse a few bytes that are shown as many tensors, each of which would be read.

    Returns:
        The bytes that are stored.

    Raises:
        Damaged: if all of them are far larger than what is stored.
    """
    shown = sum(tensor.nbytes for tensor in tensors.values())
    stored = sum({id(tensor.record): tensor.record.size for tensor in tensors.values()}.values())
    if shown > MAX_VIEWS * stored + FREE_VIEWS:
        raise Damaged(f"forged: its tensors show {shown >> 20:,} MiB, and it stores {stored >> 20:,} MiB")
    return stored
