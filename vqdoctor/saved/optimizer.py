"""The optimizer states in a checkpoint: found by their form, and aligned with the model's parameters."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqdoctor.checkpoint import LazyTensor, containers_in
from vqdoctor.saved.weight_decay import decays_adaptively

_MAX_DEPTH = 6
_MAX_NODES = 100_000
SECOND_MOMENTS = ("exp_avg_sq", "square_avg", "sum", "variance")
"""Adam and its kin; RMSprop and Adadelta; Adagrad; a vector in Adafactor."""
FIRST_MOMENTS = ("momentum_buffer", "exp_avg", "state1")
"""SGD with momentum; Lion; the 8-bit optimizers of bitsandbytes."""
ROWS, COLUMNS = ("row_var", "exp_avg_sq_row"), ("col_var", "exp_avg_sq_col")
"""Adafactor's mean squares of each row and column, in torch and in transformers."""
_LARGEST_QUANTIZED = 1 << 24
"""Elements of an 8-bit moment that are looked at."""
Shape = tuple[int, ...]


RATES = ("lr", "initial_lr", "max_lr")
"""Learning rates that torch's optimizers and schedules keep in a parameter group."""
_ADAMS_WORDS = frozenset({"amsgrad", "momentum_decay", "correct_bias"})
"""Settings of a parameter group that only Adam's kin have: Adam and AdamW; NAdam; transformers' AdamW."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """One parameter that an optimizer lists.

    Attributes:
        name: its name, where the file says it.
        group: number of its parameter group.
        weight_decay: weight decay of that group; None where not recorded.
        rate: learning rate of that group; None where not recorded.
        highest_rate: the highest one that the group records, a schedule's start or peak included; likewise.
        adaptive: whether weight decay is part of the gradient that the step divides by its own size, as in
            Adam and not in AdamW or SGD. A file that does not say so gets the benefit of the doubt.
        beta1: decay of the first moment; None for none.
        beta2: decay of the second moment, for the correction of its start at zero; None for none.
        adam: whether it is one of Adam's own kin (AdamW, NAdam, RAdam), in which a step is about the learning
            rate: not Lamb, which scales its steps by the weights, nor Prodigy, which finds its own rate.
        state: the optimizer's state of it; empty where it never had a gradient.
    """

    name: str | None
    group: int
    weight_decay: float | None
    rate: float | None
    highest_rate: float | None
    adaptive: bool
    beta1: float | None
    beta2: float | None
    adam: bool
    state: Mapping[str, Any]

    def _kept(self, *names: str) -> LazyTensor | None:
        kept = (self.state.get(name) for name in names)
        return next((tensor for tensor in kept if isinstance(tensor, LazyTensor)), None)

    @cached_property
    def moment(self) -> LazyTensor | None:
        """The squared gradients of each element: their running mean, or in Adagrad their sum."""
        found = self._kept(*SECOND_MOMENTS)
        return found if found is None or found.dtype != "uint8" else None

    @cached_property
    def trace(self) -> LazyTensor | None:
        """The tensor with each row's own gradients, of whatever power: zero where a row never had any."""
        found = self.moment or self._kept(*ROWS, *FIRST_MOMENTS)
        # float16 rounds the square of many a gradient to zero, and so do the 256 values of 8-bit optimizers
        return None if found is None or found.dtype in ("float16", "uint8") else found

    @cached_property
    def shape(self) -> Shape | None:
        """The parameter's shape, as its state tells; None without one."""
        rows, columns = self._kept(*ROWS), self._kept(*COLUMNS)
        if rows is not None and columns is not None and rows.shape and columns.shape:
            one_less = "exp_avg_sq_row" in self.state  # transformers drops what torch keeps as 1
            return (*(rows.shape if one_less else rows.shape[:-1]), columns.shape[-1])
        whole = self._kept(*SECOND_MOMENTS, *FIRST_MOMENTS)
        if whole is not None:
            return whole.shape
        return next((t.shape for t in self.state.values() if isinstance(t, LazyTensor) and t.shape), None)

    @cached_property
    def mean_gradient(self) -> LazyTensor | None:
        """Adam's running mean of the gradients; None where it keeps none in full precision."""
        found = self._kept("exp_avg")
        return None if found is None or found.dtype in ("float16", "uint8") else found

    @cached_property
    def steps(self) -> float:
        """Updates of this parameter; 0 where not recorded."""
        return number_of(self.state.get("step")) or 0.0

    def squared_gradient(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the mean square that `values` of the second moment stand for.

        Adam's start at zero is corrected as Adam does, and Adagrad's sum is divided by its steps.
        """
        moment = np.asarray(values, dtype=np.float64)
        if "sum" in self.state and self.moment is self.state["sum"]:
            return moment / max(self.steps, 1.0)
        if self.beta2 and self.steps >= 1 and self.beta2 < 1:
            moment = moment / -np.expm1(self.steps * np.log(self.beta2))
        return moment

    def mean_square(self, count: int) -> float | None:
        """Return the mean squared gradient of up to `count` elements; None where it is not kept."""
        if self.moment is not None:
            values = self.squared_gradient(self.moment.sample(count))
        elif (rows := self._kept(*ROWS)) is not None:
            values = np.asarray(rows.sample(count), np.float64)
        elif (quantized := self._kept("state2")) is not None and (
            scale := self._scales(quantized)
        ) is not None:
            values = self.squared_gradient(scale[: quantized.numel])
        else:
            return None
        return float(values.mean()) if values.size else 0.0

    def _scales(self, quantized: LazyTensor) -> NDArray[np.float64] | None:
        """Return the values of an 8-bit moment: a table's entry for each element, times its block's scale."""
        table, scales = self._kept("qmap2"), self._kept("absmax2")
        if quantized.dtype != "uint8" or table is None or scales is None or table.numel != 256:
            return None
        if not scales.numel or quantized.numel > _LARGEST_QUANTIZED:
            return None
        block = -(-quantized.numel // scales.numel)
        block = 1 << (block - 1).bit_length()  # the last block may be short
        entries: NDArray[np.float64] = np.asarray(table.read(), np.float64).reshape(-1)[
            quantized.read().reshape(-1)
        ]
        entries *= np.repeat(np.asarray(scales.read(), np.float64).reshape(-1), block)[: entries.size]
        return entries


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedOptimizer:
    """One optimizer's state dict.

    Attributes:
        path: its path in the file.
        slots: the parameters that it lists, in its order.
        learning_rate: of its first group; None where not recorded.
        groups: its parameter groups, as the file has them.
    """

    path: str
    slots: tuple[Slot, ...]
    learning_rate: float | None
    groups: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def steps(self) -> int:
        """Updates done: the most of any parameter."""
        return int(max((slot.steps for slot in self.slots), default=0.0))


def saved_optimizers(tree: Any) -> tuple[SavedOptimizer, ...]:
    """Return every optimizer state dict in `tree`, nearest to the root first."""
    todo: deque[tuple[tuple[str, ...], Any]] = deque([((), tree)])
    found: list[SavedOptimizer] = []
    seen = 0
    while todo and seen < _MAX_NODES:
        path, node = todo.popleft()
        seen += 1
        if is_optimizer(node):
            groups: list[dict[str, Any]] = node["param_groups"]
            slots = (slot for i, group in enumerate(groups) for slot in _slots(i, group, node["state"]))
            rate = number_of(groups[0].get("lr")) if groups else None
            found.append(
                SavedOptimizer(
                    path=".".join(path), slots=tuple(slots), learning_rate=rate, groups=tuple(groups)
                )
            )
        elif len(path) < _MAX_DEPTH:
            todo.extend(((*path, key), child) for key, child in containers_in(node))
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
    kept = betas[:2] if isinstance(betas, list | tuple) and len(betas) > 1 else (None, None)
    beta1, beta2 = (number_of(beta) for beta in kept)
    rates = [rate for name in RATES if (rate := number_of(group.get(name))) is not None]
    weight_decay, rate = number_of(group.get("weight_decay")), number_of(group.get("lr"))
    adaptive, adam = decays_adaptively(group), beta2 is not None and not _ADAMS_WORDS.isdisjoint(group)
    for i, key in enumerate(ids):
        state = states.get(key, states.get(str(key))) if isinstance(key, int | str) else None
        name = names[i] if named and names else key
        yield Slot(
            name=name if isinstance(name, str) else None,
            group=number,
            weight_decay=weight_decay,
            rate=rate,
            highest_rate=max(rates, default=None),
            adaptive=adaptive,
            beta1=beta1,
            beta2=beta2,
            adam=adam,
            state=state if isinstance(state, dict) else {},
        )


def number_of(value: Any) -> float | None:
    """Return a finite number out of a plain value or a tensor of one element; None for anything else."""
    if isinstance(value, LazyTensor) and value.shape in ((), (1,)) and not value.dtype.startswith("complex"):
        value = value.read().reshape(()).item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


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
