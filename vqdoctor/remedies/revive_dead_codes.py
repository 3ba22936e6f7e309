"""Bring dead codes back, so that they stay.

Two traps. A threshold of 0.01 on normalised usage is above the fair share 1/K for K = 256 and more,
and replaces every code at every step; so the threshold is relative, 0.1/K. And a code that is written
without its EMA sum and count is overwritten by the next update; so all three are written, and the
optimizer's moments of these rows are cleared. Only codes that are (almost) never chosen move, so the
outputs hardly change. Stop a few epochs before the end, so that the counts settle.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vqdoctor.core.evidence import ACTIVE_SHARE
from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy

if TYPE_CHECKING:  # a remedy is shown without numpy
    from vqdoctor.layouts.layer_arrays import LayerArrays


def apply(layer: LayerArrays) -> str:
    """Put the dead codes where vectors are, or without vectors beside the codes that are used most."""
    from vqdoctor.remedies._places import relocate

    dead = layer.dead()
    if layer.chosen_by_logits:
        return "its codes are chosen by a map of their own, wherever they lie"
    if dead is None:
        return "the dead codes are unknown; --data shows them"
    if not dead.any():
        return "no code is dead"
    return "" if relocate(layer, dead) else "no code has two different vectors to share"


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Revive codes under a tenth of their fair share while training."""
    return replace(current, revive_under=ACTIVE_SHARE)


REMEDY = Remedy(
    name="revive-dead-codes",
    stage=Stage.USAGE,
    how="Move codes that get under a tenth of their fair share onto random encoder outputs, during training.",
    code="dead = counts < 0.1 * counts.mean()   # counts: choices of each code\n"
    "codebook[dead] = z_e[torch.randperm(len(z_e))[: int(dead.sum())]]\n"
    "counts[dead] = counts.mean()\n"
    "sums[dead] = codebook[dead] * counts[dead, None]",
    names=("codebook", "counts", "sums"),
    setting=("dead codes", "0.1 * vectors_per_batch / num_codes"),
    doc=__doc__,
    apply=apply,
    plan=plan,
    writes_codes=True,
)
