"""One step of the saved optimizer beside the weights that it moves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median, median_low

import numpy as np

from vqdoctor.core.evidence import Evidence, StepSize, Unavailable
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Missing, Probe
from vqdoctor.saved.optimizer import Shape

_SAMPLE = 1 << 12


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield the size of a step, or the reason why it is unknown."""
    try:
        yield _evidence(context)
    except Missing as missing:
        yield missing.gap(StepSize, None, "checkpoint")


def _evidence(context: FileContext) -> StepSize:
    if context.saved.record.retrained:
        raise Missing("the rates in the file are those of the training before the retraining")
    tables = {view.codebook.shape for view in context.views}
    moved = [(slot, slot.shape) for slot in context.saved.slots if slot.adam and slot.state]
    rates = [
        (slot.rate, slot.highest_rate, math.sqrt(_inputs(shape)))
        for slot, shape in moved
        if _is_matrix(shape, tables) and slot.rate is not None and slot.highest_rate is not None
    ]
    if not rates:
        reason = "the file has no state of Adam with its learning rate, whose steps alone have a known size"
        raise Missing(reason, "" if context.saved.slots else "save optimizer.state_dict() with the model")
    return StepSize(
        source="checkpoint",
        sample_size=len(rates),
        learning_rate=median_low(rate for rate, _, _ in rates),
        highest_rate=median_low(highest for _, highest, _ in rates),
        updates=int(max(slot.steps for slot, _ in moved)),
        step=median(rate * root for rate, _, root in rates),
        highest_step=median(highest * root for _, highest, root in rates),
        growth=_growth(context),
    )


def _is_matrix(shape: Shape | None, tables: set[Shape]) -> bool:
    return shape is not None and len(shape) > 1 and shape not in tables and math.prod(shape) > 0


def _inputs(shape: Shape | None) -> int:
    """Return how many numbers each output is made of, in torch's order of axes: out, in, and a kernel's."""
    assert shape is not None
    return math.prod(shape[1:])


def _growth(context: FileContext) -> float | None:
    """Return the median size of the weights around the VQ layers, in units of 1 / sqrt(inputs)."""
    own = {key for view in context.views for key in view.keys.values()}
    models: Sequence[StateDict] = context.saved.models
    model = next((m for m in models if not own.isdisjoint(m.raw.values())), None)
    if model is None:
        return None
    owners = tuple(f"{view.name.partition('[head ')[0]}." for view in context.views)
    matrices = (
        context.checkpoint.tensors[model.raw[name]]
        for name, tensor in model.entries.items()
        if tensor.dtype.startswith(("float", "bfloat"))
        and _is_matrix(tensor.shape, set())
        and not name.startswith(owners)
        and model.raw[name] not in own
    )
    sizes = [
        math.sqrt(_inputs(matrix.shape) * float(np.square(matrix.sample(_SAMPLE), dtype=np.float64).mean()))
        for matrix in matrices
    ]
    finite = [size for size in sizes if math.isfinite(size)]
    return median(finite) if finite else None


PROBE = Probe(kinds=(StepSize,), measure=measure, needs_codebook=False, of_model=True)
