"""The weights that z_e depends on: are they as drawn, and does the task's optimizer move them?

A copy runs with every parameter requiring a gradient, so that autograd also says what a frozen one leads to.
"""

from __future__ import annotations

import torch

from vqdoctor.capture.pulls import leading_to
from vqdoctor.core.evidence import EncoderStart
from vqdoctor.metrics.entropy import Floats
from vqdoctor.metrics.start import LEAST_ENTRIES, is_drawn
from vqdoctor.probes.model._context import ModelContext, Parameters, outside, share_held
from vqdoctor.probes.model._gaps import of_model
from vqdoctor.probes.probe import Missing

_SAMPLE = 1 << 12
"""Numbers of a matrix that are compared."""


def measure(context: ModelContext) -> EncoderStart:
    """Return how much of the weights before and after the layers was never trained."""
    model = context.learning_copy()
    calls, losses = context.first_calls(training=True, model=model)
    if not calls or losses is None:
        raise Missing("no VQ layer's z_e is seen")
    if all(layer.view.frozen for layer in context.layers.values()):
        raise Missing(
            "the layers' tables may rightly stay as they were drawn, and so may what is before them"
        )
    parameters = outside(model, (layer.path for layer in context.layers.values() if layer.path))
    before: set[str] = set().union(*(leading_to(call.z_e, parameters) for call in calls.values()))
    after = leading_to(losses.task, parameters) - before
    (first, first_drawn), (last, last_drawn) = (_drawn(parameters, names) for names in (before, after))
    if not first or not last:
        raise Missing(f"no weight matrix of {LEAST_ENTRIES} numbers is both before and after the VQ layer")
    own = context.own_optimizer()
    return EncoderStart(
        source="batch",
        sample_size=len([n for n in (*before, *after) if _is_judged(parameters[n])]),
        before=first,
        before_drawn=first_drawn / first,
        after=last,
        after_drawn=last_drawn / last,
        listed=None if own is None else share_held(own[0], own[1:], before),
    )


def _is_judged(weight: torch.Tensor) -> bool:
    return weight.ndim > 1 and weight.numel() >= LEAST_ENTRIES


def _drawn(parameters: Parameters, names: set[str]) -> tuple[int, int]:
    """Return how many numbers were looked at, and how many are in matrices that are as they were drawn."""
    weights = [w for name in names if _is_judged(w := parameters[name])]
    drawn = (w.numel() for w in weights if is_drawn(_sample(w), tuple(w.shape)))
    return sum(w.numel() for w in weights), sum(drawn)


def _sample(weight: torch.Tensor) -> Floats:
    flat = weight.detach().flatten()
    return flat[:: -(-len(flat) // _SAMPLE)].double().cpu().numpy()


PROBE = of_model(EncoderStart, measure, mode="train")
