"""Does the loss that a VQ layer returns take part in the training?"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.capture.call import Call
from vqdoctor.core.evidence import Evidence, LossUse, Unavailable
from vqdoctor.models.task import Losses
from vqdoctor.models.tensors import tensors_of
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield, for every layer, what became of its loss on the first training batch."""
    calls, losses = context.first_calls(training=True)
    measured = {}
    for name, call in calls.items():
        if losses is not None:
            measured[name] = _use(context, name, call, losses)
    yield from by_layer(context, LossUse, measured)


def _use(context: ModelContext, name: str, call: Call, losses: Losses) -> LossUse:
    z_e = call.z_e
    own = [t for t in tensors_of(call.output) if t.is_floating_point() and t.ndim <= 1 and t.requires_grad]
    pulls = [(t, g) for t in own if (g := gradient(t.sum(), z_e)) is not None and g.any()]
    pull, both = gradient(losses.vq, z_e), (losses.task, losses.vq)
    return LossUse(
        layer=name,
        source="batch",
        sample_size=z_e.numel() // z_e.shape[context.layers[name].reader.axis(call)],
        offered=max((float(g.norm()) for _, g in pulls), default=0.0),
        # whether one of the task's losses depends on a tensor that the layer returned
        used=any(loss is t or gradient(loss, t) is not None for t, _ in pulls for loss in both)
        if pulls
        else None,
        reported=None if losses.vq is None else float(losses.vq.detach().sum()),
        gradient=None if losses.vq is None else 0.0 if pull is None else float(pull.norm()),
        vq_weight=context.vq_weight,
    )


PROBE = Probe(kinds=(LossUse,), measure=measure, mode="train", needs_codebook=False, needs_vq_loss=True)
