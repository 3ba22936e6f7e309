"""Does the VQ loss depend on anything that is trained?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from vqdoctor.capture.step import Step
from vqdoctor.core.evidence import Evidence, LossPath, Unavailable
from vqdoctor.core.frozen import frozen
from vqdoctor.models.tensors import tensors_of
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.model._looks import each_step
from vqdoctor.probes.probe import Probe

SAME = 1e-3
"""Outputs over |z_e - z_q|^2 that differ by less than this share are one factor: float32 rounds to 1e-6."""
APART = 0.01
"""Least relative range of |z_e - z_q|^2 over the batches: where it stands still, any constant would fit."""


@frozen
class _Seen:
    """One layer on one batch.

    Attributes:
        vectors: how many were quantized.
        reported: the task's VQ loss, and whether it requires a gradient; None where the task reports none.
        trains: whether the task loss has a gradient, and z_e a graph.
        error: the mean of (z_e - z_q)^2; None where their shapes differ.
        outputs: the layer's outputs of one axis at most, each by its sum, and whether it requires a gradient.
    """

    vectors: int
    reported: tuple[float, bool] | None
    trains: bool
    error: float | None
    outputs: tuple[tuple[float, bool], ...]


def _look(_: ModelContext, step: Step) -> _Seen:
    vq = step.losses.vq
    return _Seen(
        vectors=step.vectors,
        reported=None if vq is None else _summed(vq),
        # a z_e that is a leaf requires a gradient by the watch: no loss outside the layer sees that
        trains=step.losses.task.requires_grad and not step.z_e.is_leaf,
        error=_error(step),
        outputs=tuple(
            _summed(t) for t in tensors_of(step.call.output) if t.is_floating_point() and t.ndim <= 1
        ),
    )


LOOK = each_step(_look)


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield, for every layer, whether its VQ loss requires a gradient."""
    measured = {name: _path(context, name, seen) for name, seen in LOOK.at(context).items()}
    yield from by_layer(context, LossPath, measured)


def _path(context: ModelContext, name: str, seen: Sequence[_Seen]) -> LossPath:
    first = seen[0]
    loss = _own(seen) if first.reported is None else first.reported
    alive = None if loss is None else True if loss[1] else False if first.trains else None
    return LossPath(
        layer=name,
        source="batch",
        sample_size=first.vectors,
        value=None if loss is None else loss[0],
        reported=first.reported is not None,
        alive=alive,
        vq_weight=context.vq_weight,
    )


def _own(seen: Sequence[_Seen]) -> tuple[float, bool] | None:
    """Return the layer's first output that is its quantization error up to a factor; None if none is."""
    known = [one.error for one in seen if one.error]
    if len(known) < len(seen) or len(known) < 2 or max(known) / min(known) < 1 + APART:
        return None
    for place, output in enumerate(seen[0].outputs):
        if any(len(one.outputs) != len(seen[0].outputs) for one in seen):
            return None
        factors = [one.outputs[place][0] / error for one, error in zip(seen, known, strict=True)]
        if factors[0] > 0 and all(abs(f / factors[0] - 1) < SAME for f in factors):
            return output
    return None


def _error(step: Step) -> float | None:
    """Return the mean of (z_e - z_q)^2; None where their shapes differ."""
    if step.z_e.shape != step.z_q.shape:
        return None
    return float((step.z_e.detach() - step.z_q.detach()).double().square().mean())


def _summed(tensor: torch.Tensor) -> tuple[float, bool]:
    return float(tensor.detach().sum()), tensor.requires_grad


PROBE = Probe(kinds=(LossPath,), measure=measure, mode="train", needs_codebook=False)
