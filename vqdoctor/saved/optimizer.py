"""The optimizer states in a checkpoint: found by their form, and aligned with the model's parameters."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqdoctor.checkpoint import LazyTensor, children
from vqdoctor.saved.weight_decay import decays_adaptively

_MAX_DEPTH = 6
_MAX_NODES = 100_000
SECOND_MOMENTS = ("exp_avg_sq", "square_avg")
"""Adam and its kin; RMSprop."""
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """One parameter that an optimizer lists.

    Attributes:
        name: its name, where the file says it.
        group: number of its parameter group.
        weight_decay: weight decay of that group; None where not recorded.
        rate: learning rate of that group; None where not recorded.
        adaptive: whether weight decay is part of the gradient that the step divides by its own size, as in
            Adam and not in AdamW or SGD. A file that does not say so gets the benefit of the doubt.
        beta2: decay of the second moment, for the correction of its start at zero; None for none.
        state: the optimizer's state of it; empty where it never had a gradient.
    """

    name: str | None
    group: int
    weight_decay: float | None
    rate: float | None
    adaptive: bool
    beta2: float | None
    state: Mapping[str, Any]

    @cached_property
    def moment(self) -> LazyTensor | None:
        """The running mean of squared gradients."""
        kept = (self.state.get(key) for key in SECOND_MOMENTS)
        return next((tensor for tensor in kept if isinstance(tensor, LazyTensor)), None)

    @cached_property
    def shape(self) -> Shape | None:
        """The parameter's shape, as its state tells; None without one."""
        return next((t.shape for t in self.state.values() if isinstance(t, LazyTensor) and t.shape), None)

    @cached_property
    def steps(self) -> float:
        """Updates of this parameter; 0 where not recorded."""
        return _number(self.state.get("step")) or 0.0

    def squared_gradient(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Correct `values` of the second moment for its start at zero, as Adam does."""
        moment = np.asarray(values, dtype=np.float64)
        if self.beta2 and self.steps >= 1 and self.beta2 < 1:
            moment = moment / -np.expm1(self.steps * np.log(self.beta2))
        return moment


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedOptimizer:
    """One optimizer's state dict.

    Attributes:
        path: its path in the file.
        slots: the parameters that it lists, in its order.
        learning_rate: of its first group; None where not recorded.
    """

    path: str
    slots: tuple[Slot, ...]
    learning_rate: float | None

    @cached_property
    def steps(self) -> int:
        """Updates done: the most of any parameter."""
        return int(max((slot.steps for slot in self.slots), default=0.0))


def saved_optimizers(tree: Any) -> tuple[SavedOptimizer, ...]:
    """Return every optimizer state dict in `tree`, nearest to the root first."""
    todo: deque[tuple[str, int, Any]] = deque([("", 0, tree)])
    found: list[SavedOptimizer] = []
    seen = 0
    while todo and seen < _MAX_NODES:
        path, depth, node = todo.popleft()
        seen += 1
        if is_optimizer(node):
            groups: list[dict[str, Any]] = node["param_groups"]
            slots = (slot for i, group in enumerate(groups) for slot in _slots(i, group, node["state"]))
            rate = _number(groups[0].get("lr")) if groups else None
            found.append(SavedOptimizer(path=path, slots=tuple(slots), learning_rate=rate))
        elif depth < _MAX_DEPTH:
            inner = ((f"{path}.{key}" if path else key, depth + 1, child) for key, child in children(node))
            todo.extend(item for item in inner if not isinstance(item[2], LazyTensor | str | int | float))
    return tuple(found)


def is_optimizer(node: Any) -> bool:
    """Return whether a node of a checkpoint's tree has the form of an optimizer's state dict."""
    if not (isinstance(node, dict) and isinstance(node.get("state"), dict)):
        return False
    groups = node.get("param_groups")
    return isinstance(groups, list) and all(isinstance(g, dict) and "params" in g for g in groups)


def _slots(number: int, group: Mapping[str, Any], states: Mapping[Any, Any]) -> Iterator[Slot]:
    ids = group["params"] if isinstance(group["params"], list | tuple) else ()
    names = group.get("param_names")
    named = isinstance(names, list | tuple) and len(names) == len(ids)
    betas = group.get("betas")
    beta2 = _number(betas[1]) if isinstance(betas, list | tuple) and len(betas) > 1 else None
    for i, key in enumerate(ids):
        state = states.get(key) if isinstance(key, int | str) else None
        name = names[i] if named and names else key
        yield Slot(
            name=name if isinstance(name, str) else None,
            group=number,
            weight_decay=_number(group.get("weight_decay")),
            rate=_number(group.get("lr")),
            adaptive=decays_adaptively(group),
            beta2=beta2,
            state=state if isinstance(state, dict) else {},
        )


def _number(value: Any) -> float | None:
    """A finite number out of a plain value or a tensor of one element; else None."""
    if isinstance(value, LazyTensor) and value.shape in ((), (1,)) and not value.dtype.startswith("complex"):
        value = value.read().reshape(()).item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if np.isfinite(value) else None


def align(slots: Sequence[Shape | None], entries: Sequence[Shape]) -> tuple[list[int], list[int]] | None:
    """Align optimizer slots with a model's parameters, keeping the order of both.

    Both list a model's parameters in its own order; the entries may hold more (buffers, frozen
    parameters), and a slot without a state fits any shape. Returned are the first and the last entry
    that each slot can stand for in any alignment; None where there is no alignment at all.

    >>> align([(2,), None], [(3,), (2,), (2,), (5,)])
    ([1, 2], [2, 3])
    """
    first = _greedy(slots, entries)
    last = _greedy(slots[::-1], entries[::-1])
    if first is None or last is None:
        return None
    return first, [len(entries) - 1 - at for at in last[::-1]]


def _greedy(slots: Sequence[Shape | None], entries: Sequence[Shape]) -> list[int] | None:
    placed: list[int] = []
    at = 0
    for shape in slots:
        while at < len(entries) and shape is not None and entries[at] != shape:
            at += 1
        if at == len(entries):
            return None
        placed.append(at)
        at += 1
    return placed
