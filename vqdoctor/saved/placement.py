"""Which of a model's parameters an optimizer's slots stand for, seen from one VQ layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile, zip_longest

from vqdoctor.layouts.state_dict import strip_prefixes
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.saved.optimizer import SavedOptimizer, Shape, Slot, align
from vqdoctor.saved.training import SavedTraining

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_FLOATS = ("float", "bfloat")
_PARTS = re.compile(r"(?:.*_)?(?P<word>enc|encoder|dec|decoder)(?:_.*|\d*)")
_EMA_ROLES = ("counts", "sums", "initted")
"""Roles whose tensors are buffers; a projection is a parameter like any other."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A tensor of the model that may be a parameter.

    Attributes:
        name: its name.
        shape: its shape.
        part: "before", "after", "codebook" or "other".
        ema_owned: whether an EMA writes it.
        contradicted: whether the model's order and the names of its parts disagree on before and after.
    """

    name: str
    shape: Shape
    part: str
    ema_owned: bool
    contradicted: bool = False


@dataclass(frozen=True, kw_only=True)
class PlacedSlot:
    """An optimizer's slot, and the first and last entry that it can stand for."""

    slot: Slot
    first: Entry
    last: Entry

    @property
    def part(self) -> str | None:
        """The part of the model that the slot is in, or None where its alignments differ."""
        return self.first.part if self.first.part == self.last.part else None


class Unplaced(Exception):
    """The optimizer's slots fit no parameters of the model; the message is the reason."""


def placed_slots(
    saved: SavedTraining, view: QuantizerView, views: Sequence[QuantizerView]
) -> list[PlacedSlot]:
    """Return the slots of all optimizers, each with the model's tensors that it can stand for.

    Args:
        saved: the training as the file remembers it.
        view: the layer that the parameters are before or after.
        views: all layers of the file.

    Raises:
        Unplaced: if nothing fits.
    """
    entries = _entries(saved, view, views)
    placed = [p for optimizer in saved.optimizers for p in _place(optimizer, entries)]
    if not placed:
        raise Unplaced("the optimizer's parameters do not fit the model's")
    return placed


def codebook_slot(saved: SavedTraining, view: QuantizerView, views: Sequence[QuantizerView]) -> Slot | None:
    """Return the optimizer's slot of a codebook; None where no optimizer lists it for sure."""
    try:
        placed = placed_slots(saved, view, views)
    except Unplaced:
        return None
    return next((p.slot for p in placed if p.part == "codebook"), None)


def _entries(saved: SavedTraining, view: QuantizerView, views: Sequence[QuantizerView]) -> list[Entry]:
    """Return the model's tensors in its own order, without those that are buffers for sure."""
    own = set(view.keys.values())
    model = next((m for m in saved.models if not own.isdisjoint(m.raw.values())), None)
    if model is None:
        raise Unplaced("the layer is not in a state dict")
    others = {key for v in views if v is not view for key in v.keys.values()}
    buffers = {key for v in views for role, key in v.keys.items() if role in _EMA_ROLES}
    ema_owned = {v.keys.get("codebook") for v in views if "counts" in v.keys and "sums" in v.keys}
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
        entries.append(Entry(name=name, shape=tensor.shape, part=part, ema_owned=raw in ema_owned))
    return _by_names(entries, view.name)


def _by_names(entries: list[Entry], layer: str) -> list[Entry]:
    """Return the entries with the parts that their names say, where these contradict the model's order.

    A file has the order in which modules were registered, which need not be that of the data: taming's models
    register the quantizer behind the decoder. Where encoder and decoder are both named, the names decide.
    """
    said = {entry.name: part for entry in entries if (part := _named_part(entry.name, layer))}
    ordered = {entry.name: entry.part for entry in entries if entry.part in ("before", "after")}
    if all(ordered.get(name, part) == part for name, part in said.items()):
        return entries
    named = said if set(said.values()) == {"before", "after"} else ordered
    return [
        replace(
            entry,
            contradicted=True,
            part=named.get(entry.name, "other") if entry.name in ordered else entry.part,
        )
        for entry in entries
    ]


def _named_part(name: str, layer: str) -> str | None:
    """Return the part of the model that the first word for one in a name says; None if there is none.

    A word that the layer's own name begins with is passed over: the layer is in that part too.
    """
    shared = (one == two for one, two in zip_longest(name.split("."), layer.split(".")))
    own = sum(takewhile(bool, shared))
    words = (_PARTS.fullmatch(token.lower()) for token in name.split(".")[own:])
    word = next((found["word"] for found in words if found), None)
    return None if word is None else "before" if word.startswith("enc") else "after"


def _place(optimizer: SavedOptimizer, entries: list[Entry]) -> list[PlacedSlot]:
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
    placed: list[PlacedSlot] = []
    for number in sorted({slot.group for slot in optimizer.slots}):
        group = [slot for slot in optimizer.slots if slot.group == number]
        if not (found := _by_shape(group, entries)):
            return []
        placed += found
    return placed


def _by_name(slots: Sequence[Slot], entries: list[Entry]) -> list[PlacedSlot]:
    known = {entry.name: entry for entry in entries}
    placed = []
    for slot in slots:
        name = slot.name or ""
        entry = known.get(name) or known.get(strip_prefixes(name))
        if entry and slot.shape in (None, entry.shape):
            placed.append(PlacedSlot(slot=slot, first=entry, last=entry))
    return placed


def _by_shape(slots: Sequence[Slot], entries: list[Entry]) -> list[PlacedSlot]:
    found = align([slot.shape for slot in slots], [entry.shape for entry in entries])
    if found is None:
        return []
    return [
        PlacedSlot(slot=slot, first=entries[first], last=entries[last])
        for slot, first, last in zip(slots, *found, strict=True)
    ]
