"""Which of a model's parameters an optimizer's slots stand for, seen from one VQ layer."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile, zip_longest

from vqdoctor.core.frozen import frozen
from vqdoctor.layouts.state_dict import strip_prefixes
from vqdoctor.layouts.view import QuantizerView, Tensor
from vqdoctor.layouts.words import is_judges
from vqdoctor.saved.optimizer import SavedOptimizer, Shape, Slot, align
from vqdoctor.saved.training import SavedTraining

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_FLOATS = ("float", "bfloat")
_JUDGES_OPTIMIZER = re.compile(
    r"(?:^|_)(?:d|disc\w*)$|(?:^|_)disc|^(?:d|disc\w*)_opt|optimizerd$", re.IGNORECASE
)
"""Names of a discriminator's optimizer: "optimizer_disc", "optim_d", "opt_disc", "d_optimizer"."""
_MAX_GROUPS = 5
_PARTS = re.compile(r"(?:.*_)?(?P<word>enc|encoder|dec|decoder)(?:_.*|\d*)")
_EMA_ROLES = ("counts", "sums", "initted")
"""Roles whose tensors are buffers; a projection is a parameter like any other."""


@frozen
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


@frozen
class PlacedSlot:
    """An optimizer's slot, and the first and last entry that it can stand for."""

    slot: Slot
    first: Entry
    last: Entry

    @property
    def part(self) -> str | None:
        """The part of the model that the slot is in, or None where its alignments differ."""
        return self.first.part if self.first.part == self.last.part else None


_MOST_PAIRS = 100_000
"""VQ layers times tensors, of some 10 microseconds each: 16 layers in a model of 2000 tensors have 32,000."""


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
    if not saved.optimizers:
        raise Unplaced("the file holds no optimizer state")
    if len(views) * sum(len(model.entries) for model in saved.models) > _MOST_PAIRS:
        raise Unplaced("the file has too many VQ layers and tensors to place the optimizer's parameters")
    entries, judges = entries_of(saved, view, views), _judges(saved)
    own = (optimizer for optimizer in saved.optimizers if not _is_judges(optimizer, entries, judges))
    place = _place if saved.in_order else _by_lone_shape
    placed = [p for optimizer in own for p in place(optimizer, entries)]
    if not placed:
        raise Unplaced("the optimizer's parameters do not fit the model's")
    return placed


def is_unlisted(
    placed: Sequence[PlacedSlot], saved: SavedTraining, view: QuantizerView, views: Sequence[QuantizerView]
) -> bool:
    """Whether the optimizers have a state for every parameter around a layer, and do not list its codebook.

    Whether the table is a parameter is another matter: a buffer may follow an EMA that is not saved.
    """
    around = [entry for entry in entries_of(saved, view, views) if entry.part in ("before", "after")]
    trained = {p.first.name for p in placed if p.slot.state and p.first is p.last}
    listed = any("codebook" in (p.first.part, p.last.part) for p in placed)
    return (
        not view.frozen
        and not listed
        and len({entry.part for entry in around}) == 2
        and all(entry.name in trained for entry in around)
    )


def codebook_slot(saved: SavedTraining, view: QuantizerView, views: Sequence[QuantizerView]) -> Slot | None:
    """Return the optimizer's slot of a codebook; None where no optimizer lists it for sure."""
    try:
        placed = placed_slots(saved, view, views)
    except Unplaced:
        return None
    return next((p.slot for p in placed if p.part == "codebook"), None)


def entries_of(saved: SavedTraining, view: QuantizerView, views: Sequence[QuantizerView]) -> list[Entry]:
    """Return the model's tensors in its own order, without those that are buffers for sure.

    Raises:
        Unplaced: if the layer is not in a state dict.
    """
    own = set(view.keys.values())
    model = next((m for m in saved.models if not own.isdisjoint(m.raw.values())), None)
    if model is None:
        raise Unplaced("the layer is not in a state dict")
    others = {key for v in views if v is not view for key in v.keys.values()}
    buffers = {key for v in views for role, key in v.keys.items() if role in _EMA_ROLES}
    ema_owned = {v.keys.get("codebook") for v in views if "counts" in v.keys and "sums" in v.keys}
    # what holds the codebook is no discriminator, whatever it is called
    names = [name for name in model.entries if model.raw[name] in own or not is_judges(name.split("."))]
    inside = [i for i, n in enumerate(names) if model.raw[n] in own or n.startswith(f"{view.name}.")]
    entries = []
    for i, name in enumerate(names):
        raw, tensor = model.raw[name], model.entries[name]
        if raw in buffers or not _may_be_trained(name, tensor):
            continue
        if raw == view.keys.get("codebook") and not view.frozen:
            part = "codebook"
        elif raw in others or inside[0] <= i <= inside[-1] or not saved.in_order:
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


def _judges(saved: SavedTraining) -> list[Shape]:
    """Return the shapes of the parameters of discriminators and losses, in the file's order."""
    return [
        tensor.shape
        for model in saved.models
        for name, tensor in model.entries.items()
        if is_judges(model.raw[name].split(".")) and _may_be_trained(name, tensor)
    ]


def _may_be_trained(name: str, tensor: Tensor) -> bool:
    return not name.endswith(_BUFFERS) and tensor.dtype.startswith(_FLOATS)


def _is_judges(optimizer: SavedOptimizer, entries: Sequence[Entry], judges: Sequence[Shape]) -> bool:
    """Whether an optimizer is that of a discriminator: its name says so, or it fits there alone.

    Raises:
        Unplaced: if it fits both the model and a discriminator.
    """
    if _JUDGES_OPTIMIZER.search(optimizer.path.rpartition(".")[2]):
        return True
    if not judges or any(slot.name is not None for slot in optimizer.slots):
        return False
    shapes = [slot.shape for slot in optimizer.slots]
    if align(shapes, judges) is None:
        return False
    own = [[e.shape for e in entries], [e.shape for e in entries if not e.ema_owned]]
    if any(len(shapes) == len(fit) and align(shapes, fit) for fit in own):
        if len(shapes) == len(judges):
            raise Unplaced("an optimizer fits both the model and its discriminator")
        return False
    return len(shapes) == len(judges) or all(align(shapes, fit) is None for fit in own)


def _place(optimizer: SavedOptimizer, entries: list[Entry]) -> list[PlacedSlot]:
    """Find the entries that an optimizer's slots stand for; empty where they fit nowhere."""
    if all(slot.name is not None for slot in optimizer.slots):
        return _by_name(optimizer.slots, entries)
    # A codebook that an EMA writes is hardly a parameter: if all fits without it, that is the fit.
    without = [entry for entry in entries if not entry.ema_owned]
    groups = [list(slots) for _, slots in itertools.groupby(optimizer.slots, key=lambda slot: slot.group)]
    for candidates in (without, entries):
        if len(candidates) != len(optimizer.slots):
            continue
        if found := _in_any_order(groups, candidates) or _by_dimensions(groups, candidates):
            return found
    if len(groups) == 1:
        return _by_shape(optimizer.slots, entries)
    # Groups (with and without weight decay, a rate for the codebook) keep the order within themselves.
    placed: list[PlacedSlot] = []
    for group in groups:
        if not (found := _by_shape(group, entries)):
            return []
        placed += found
    return placed


def _in_any_order(groups: list[list[Slot]], entries: list[Entry]) -> list[PlacedSlot]:
    """Place groups that follow each other, in whatever order they do; empty where they fit in none.

    Raises:
        Unplaced: if two orders fit, and put a slot into different parts of the model.
    """
    # SGD without momentum keeps no state that shows a shape, and no gradient that could be misplaced.
    told = len(groups) <= _MAX_GROUPS and any(slot.shape is not None for group in groups for slot in group)
    orders = itertools.permutations(groups) if told else iter([tuple(groups)])
    fits = [found for order in orders if (found := _by_shape([s for group in order for s in group], entries))]
    parts = [{id(p.slot): p.part for p in found} for found in fits]
    if any(other != parts[0] for other in parts[1:]):
        raise Unplaced("the optimizer's groups fit the model's parameters in several orders")
    return fits[0] if fits else []


def _by_dimensions(groups: list[list[Slot]], entries: list[Entry]) -> list[PlacedSlot]:
    """Place groups that are told apart by their numbers of dimensions: weights with decay, biases without."""
    placed: list[PlacedSlot] = []
    ranks = [{len(slot.shape) for slot in group if slot.shape is not None} for group in groups]
    if len(groups) < 2 or sum(map(len, ranks)) != len(set().union(*ranks)):
        return []
    for group, rank in zip(groups, ranks, strict=True):
        own = [entry for entry in entries if len(entry.shape) in rank]
        found = _by_shape(group, own) if len(own) == len(group) else []
        if not found:
            return []
        placed += found
    return placed


def _by_lone_shape(optimizer: SavedOptimizer, entries: list[Entry]) -> list[PlacedSlot]:
    """Place the slots whose shape no other slot and no other tensor has, where no order is known."""
    if all(slot.name is not None for slot in optimizer.slots):
        return _by_name(optimizer.slots, entries)
    slots, shapes = Counter(slot.shape for slot in optimizer.slots), Counter(e.shape for e in entries)
    known = {entry.shape: entry for entry in entries if shapes[entry.shape] == 1}
    lone = [slot for slot in optimizer.slots if slot.shape in known and slots[slot.shape] == 1]
    return [
        PlacedSlot(slot=slot, first=known[slot.shape], last=known[slot.shape]) for slot in lone if slot.shape
    ]


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
