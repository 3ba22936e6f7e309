"""How much of the output changes with the codes of another sample, and whether z_e has a way around z_q.

Swapping needs no scale of the task loss: without a way around, the codes of another sample make its output.
They are those of the undisturbed pass: the levels of a residual quantizer would undo a swap before them.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

from vqdoctor.capture.call import Call
from vqdoctor.capture.layer import CapturedLayer, Change, watching
from vqdoctor.capture.pulls import leading_to
from vqdoctor.core.evidence import CodeDependence
from vqdoctor.models.tensors import tensors_of
from vqdoctor.models.untouched import seed_all
from vqdoctor.probes.model._context import ModelContext, outside
from vqdoctor.probes.model._gaps import of_model
from vqdoctor.probes.probe import Missing

LEAST_SAMPLES = 4


def measure(context: ModelContext) -> CodeDependence:
    """Return the share of the output that follows the codes of all layers, on the first training batch."""
    if not context.first_batches or not context.mapped:
        raise Missing("no VQ layer's z_q is seen")
    given: dict[str, list[torch.Tensor]] = defaultdict(list)

    def note(layer: CapturedLayer, call: Call) -> None:
        assert call.z_q is not None
        given[layer.name].append(call.z_q)

    own = _outputs(context, note)
    samples = len(own[0]) if own else 0
    if samples < LEAST_SAMPLES:
        raise Missing("the model's output is not seen, or has too few samples")

    def swap(layer: CapturedLayer, call: Call) -> torch.Tensor | None:
        if not given[layer.name]:
            return None  # called more often than in the undisturbed pass
        z_q = given[layer.name].pop(0)
        rows = len(z_q)
        return z_q.roll(rows // samples * (samples // 2), 0) if rows % samples == 0 else None

    shares = [
        float((other - output).square().mean() / apart)
        for output, other in zip(own, _outputs(context, swap), strict=True)
        if len(output) == samples and (apart := _apart(output, samples // 2)) > 0
    ]
    if not shares:
        raise Missing("the model puts out the same for every sample")
    return CodeDependence(source="batch", sample_size=samples, swapped=max(shares), around=_around(context))


def _outputs(context: ModelContext, change: Change) -> list[torch.Tensor]:
    """Return the model's float outputs of two axes and more in eval mode, z_q replaced by `change`."""
    model = context.copy(training=False)
    found: list[torch.Tensor] = []

    def note(_: nn.Module, __: object, output: object) -> None:
        floats = (t for t in tensors_of(output) if t.is_floating_point() and t.ndim > 1 and len(t))
        found.extend(t.detach().float() for t in floats if not found or len(t) == len(found[0]))

    handle = model.register_forward_hook(note)
    seed_all(context.seed)
    with watching(context.on(model), change), torch.no_grad():
        context.task.losses(model, context.first_batches[0])
    handle.remove()
    return found


def _apart(output: torch.Tensor, shift: int) -> float:
    return float((output.roll(shift, 0) - output).square().mean())


def _around(context: ModelContext) -> float:
    """Return the share of the numbers that z_e depends on which the task depends on without z_q."""
    model = context.learning_copy()

    def cut(layer: CapturedLayer, call: Call) -> torch.Tensor:
        assert call.z_q is not None
        return call.z_q.detach().requires_grad_()

    layers = context.on(model)
    seed_all(context.seed)
    with watching(layers, cut, keep_graph=True) as watched:
        losses = context.task.losses(model, context.first_batches[0])
    parameters = outside(model, (layer.path or "" for layer in layers))
    inputs = [call.z_e for layer in layers for call in layer.calls(watched)]
    before: set[str] = set().union(*(leading_to(z_e, parameters) for z_e in inputs))
    left = before & leading_to(losses.task, parameters)
    total = sum(parameters[name].numel() for name in before)
    return sum(parameters[name].numel() for name in left) / total if total else 0.0


PROBE = of_model(CodeDependence, measure, mode="both")
