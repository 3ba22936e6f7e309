"""What the optimizer's second moments remember of the gradients before, in and after a VQ layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vqdoctor.core.evidence import Evidence, OptimizerMemory, Unavailable
from vqdoctor.layouts.state_dict import StateDict, state_dicts, strip_prefixes
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Probe
from vqdoctor.saved.optimizer import SavedOptimizer, Shape, Slot, align

_SAMPLE = 1 << 14
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_FLOATS = ("float", "bfloat")
_SAVE_IT = "save optimizer.state_dict() with the model"


class _Unknown(Exception):
    """What the optimizer remembers cannot be told; the message is the reason."""


_EMA_ROLES = ("counts", "sums", "initted")
"""Roles whose tensors are buffers; a projection is a parameter like any other."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A tensor of the model that may be a parameter; `part` is before, after, codebook or other."""

    name: str
    shape: Shape
    part: str
    ema_owned: bool


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """An optimizer's slot, and the first and last entry that it can stand for."""

    slot: Slot
    first: _Entry
    last: _Entry

    @property
    def part(self) -> str | None:
        """Where the slot stands, or None where its alignments differ."""
        return self.first.part if self.first.part == self.last.part else None


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield what the file's optimizers hold at all, then what they tell about each layer."""
    slots = [slot for optimizer in context.optimizers for slot in optimizer.slots]
    with_state = sum(bool(slot.state) for slot in slots)
    yield OptimizerMemory(source="checkpoint", sample_size=with_state, parameters=len(slots))
    models = state_dicts(context.checkpoint.tensors)
    for view in context.views:
        try:
            if not context.optimizers:
                raise _Unknown("the file has no optimizer state")
            yield _memory(context, view, models)
        except _Unknown as reason:
            hint = "" if with_state else _SAVE_IT
            yield context.gap(OptimizerMemory.kind, view, str(reason), hint)


def codebook_slot(context: FileContext, view: QuantizerView) -> Slot | None:
    """Return the optimizer's slot of a codebook; None where no optimizer lists it for sure."""
    try:
        placed = _placed(context, view, state_dicts(context.checkpoint.tensors))
    except _Unknown:
        return None
    return next((p.slot for p in placed if p.part == "codebook"), None)


def _memory(context: FileContext, view: QuantizerView, models: Sequence[StateDict]) -> OptimizerMemory:
    placed = _placed(context, view, models)
    before, after = _gradient(placed, "before"), _gradient(placed, "after")
    listed = _codebook_listed(placed)
    codebook = next((p.slot for p in placed if p.part == "codebook"), None)
    return OptimizerMemory(
        layer=view.name,
        source="checkpoint",
        sample_size=sum(bool(p.slot.state) for p in placed),
        parameters=len(placed),
        before_gradient=before,
        after_gradient=after,
        ratio=before / after if before is not None and after else None,
        codebook_listed=listed,
        codebook_has_state=bool(codebook.state) if codebook else None,
        codebook_untouched_rows=_untouched_rows(codebook, view) if codebook else None,
        weight_decay=codebook.weight_decay if codebook else None,
    )


def _placed(context: FileContext, view: QuantizerView, models: Sequence[StateDict]) -> list[_Placed]:
    entries = _entries(context, view, models)
    placed = [p for optimizer in context.optimizers for p in _place(optimizer, entries)]
    if not placed:
        raise _Unknown("the optimizer's parameters do not fit the model's")
    return placed


def _entries(context: FileContext, view: QuantizerView, models: Sequence[StateDict]) -> list[_Entry]:
    """The model's tensors in its own order, without those that are buffers for sure."""
    own = set(view.keys.values())
    model = next((m for m in models if not own.isdisjoint(m.raw.values())), None)
    if model is None:
        raise _Unknown("the layer is not in a state dict")
    others = {key for v in context.views if v is not view for key in v.keys.values()}
    buffers = {key for v in context.views for role, key in v.keys.items() if role in _EMA_ROLES}
    ema_owned = {v.keys.get("codebook") for v in context.views if "counts" in v.keys and "sums" in v.keys}
    names = list(model.entries)
    inside = [i for i, n in enumerate(names) if model.raw[n] in own or n.startswith(f"{view.name}.")]
    entries = []
    for i, name in enumerate(names):
        raw, tensor = model.raw[name], model.entries[name]
        if raw in buffers or name.endswith(_BUFFERS) or not tensor.dtype.startswith(_FLOATS):
            continue
        if raw == view.keys.get("codebook") and not view.frozen:
            part = "codebook"
        elif raw in others or inside[0] <= i <= inside[-1]:
            part = "other"
        else:
            part = "before" if i < inside[0] else "after"
        entries.append(_Entry(name=name, shape=tensor.shape, part=part, ema_owned=raw in ema_owned))
    return entries


def _place(optimizer: SavedOptimizer, entries: list[_Entry]) -> list[_Placed]:
    """Find the entries that an optimizer's slots stand for; empty where they fit nowhere."""
    if all(slot.name is not None for slot in optimizer.slots):
        return _by_name(optimizer.slots, entries)
    # A codebook that an EMA writes is hardly a parameter: if all fits without it, that is the fit.
    without = [entry for entry in entries if not entry.ema_owned]
    for candidates in (without, entries):
        if len(candidates) == len(optimizer.slots) and (found := _by_shape(optimizer.slots, candidates)):
            return found
    if found := _by_shape(optimizer.slots, entries):
        return found
    # Groups (with and without weight decay, a rate for the codebook) keep the order within themselves.
    placed: list[_Placed] = []
    for number in sorted({slot.group for slot in optimizer.slots}):
        group = [slot for slot in optimizer.slots if slot.group == number]
        if not (found := _by_shape(group, entries)):
            return []
        placed += found
    return placed


def _by_name(slots: Sequence[Slot], entries: list[_Entry]) -> list[_Placed]:
    known = {entry.name: entry for entry in entries}
    placed = []
    for slot in slots:
        name = slot.name or ""
        entry = known.get(name) or known.get(strip_prefixes(name))
        if entry and slot.shape in (None, entry.shape):
            placed.append(_Placed(slot=slot, first=entry, last=entry))
    return placed


def _by_shape(slots: Sequence[Slot], entries: list[_Entry]) -> list[_Placed]:
    found = align([slot.shape for slot in slots], [entry.shape for entry in entries])
    if found is None:
        return []
    return [
        _Placed(slot=slot, first=entries[first], last=entries[last])
        for slot, first, last in zip(slots, *found, strict=True)
    ]


def _gradient(placed: Sequence[_Placed], part: str) -> float | None:
    """Root mean square gradient of the parameters in that part; one without a state never had any.

    Raises:
        _Unknown: if a parameter may lie in that part or not, or a state holds no second moment.
    """
    squares, elements = 0.0, 0
    for p in placed:
        if p.part is None and part in (p.first.part, p.last.part):
            raise _Unknown(f"the optimizer's parameters fit the model's in several ways ({p.first.name} …)")
        if p.part != part:
            continue
        size = math.prod(p.first.shape)
        elements += size
        if p.slot.moment is not None:
            values = p.slot.squared_gradient(p.slot.moment.sample(_SAMPLE))
            squares += size * float(values.mean()) if values.size else 0.0
        elif p.slot.state:
            raise _Unknown("the optimizer keeps no second moments")
    if not math.isfinite(squares):
        raise _Unknown("the optimizer state has non-finite values")
    return math.sqrt(squares / elements) if elements else None


def _codebook_listed(placed: Sequence[_Placed]) -> bool | None:
    if any(p.part == "codebook" for p in placed):
        return True
    # A slot whose alignments reach from before the codebook to after it might be the codebook.
    maybe = any(p.part is None for p in placed)
    return None if maybe else False


def _untouched_rows(slot: Slot, view: QuantizerView) -> int | None:
    """Codebook rows whose second moment is exactly zero; None where the state tells no rows."""
    if slot.moment is None or math.prod(slot.moment.shape) != view.num_codes * view.dim:
        return None
    if slot.moment.dtype == "float16":
        return None  # it rounds the square of many a gradient to zero
    moment = slot.moment.read()
    as_stored = tuple(n for n in slot.moment.shape if n > 1)
    if as_stored == (view.dim, view.num_codes) and view.dim != view.num_codes:
        moment = moment.reshape(view.dim, view.num_codes).T
    rows = moment.reshape(view.num_codes, view.dim)
    return int(np.sum((rows == 0).all(axis=1)))


PROBE = Probe(kinds=(OptimizerMemory,), measure=measure)
