"""Does the loss that a VQ layer returns take part in the training?"""

from __future__ import annotations

from vqdoctor.capture.call import Call
from vqdoctor.capture.pulls import leading_to
from vqdoctor.core.evidence import LossUse
from vqdoctor.models.task import Losses
from vqdoctor.models.tensors import tensors_of
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._gaps import each_layer


def measure(context: ModelContext) -> dict[str, LossUse]:
    """Return, for every layer, the part of its loss in the losses of the first training batch."""
    model = context.copy(training=True)
    calls, losses = context.first_calls(training=True, model=model)
    if losses is None:
        return {}
    parameters = dict(model.named_parameters())
    held = set() if losses.vq is None else leading_to(losses.vq, parameters)
    return {
        name: _use(context, name, call, losses, around=bool(held & leading_to(call.z_e, parameters)))
        for name, call in calls.items()
    }


def _use(context: ModelContext, name: str, call: Call, losses: Losses, *, around: bool) -> LossUse:
    """Return how a layer's loss is used.

    Args:
        context: the model and its task.
        name: the layer.
        call: its call.
        losses: the task's losses.
        around: whether the VQ loss reaches parameters that z_e depends on; without a path through z_e, it
            takes the encoder's output before that was reshaped for the lookup.
    """
    z_e = call.z_e
    own = [t for t in tensors_of(call.output) if t.is_floating_point() and t.ndim <= 1 and t.requires_grad]
    pulls = [(t, g) for t in own if (g := gradient(t.sum(), z_e)) is not None and g.any()]
    pull, both = gradient(losses.vq, z_e), (losses.task, losses.vq)
    # a z_e that is a leaf was made to require a gradient by the watch: no loss outside the layer sees that
    unseen = losses.vq is None or (pull is None and (z_e.is_leaf or around))
    return LossUse(
        source="batch",
        sample_size=z_e.numel() // z_e.shape[context.layers[name].reader.axis(call)],
        offered=max((float(g.norm()) for _, g in pulls), default=0.0),
        # whether one of the task's losses depends on a tensor that the layer returned
        used=any(loss is t or gradient(loss, t) is not None for t, _ in pulls for loss in both)
        if pulls
        else None,
        reported=None if losses.vq is None else float(losses.vq.detach().sum()),
        gradient=None if unseen else 0.0 if pull is None else float(pull.norm()),
        vq_weight=context.vq_weight,
    )


PROBE = each_layer(LossUse, measure, mode="train", needs_codebook=False, needs_vq_loss=True)
