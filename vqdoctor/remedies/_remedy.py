"""The type of a remedy: its advice in words and in lines of code, and the functions that carry it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from vqdoctor.core.check import Advice
from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan

if TYPE_CHECKING:  # a remedy is shown without numpy
    from vqdoctor.layouts.layer_arrays import LayerArrays


@frozen
class Remedy(Advice):
    """One remedy. One file in `remedies/` defines one, as `REMEDY`; the checks name their remedies.

    Attributes:
        stage: its place in the priority order of the plan.
        doc: the module's docstring: why it helps, and what to watch.
        apply: changes one VQ layer's arrays in place, and returns "", or why it changed nothing; None where a
            file alone cannot take the remedy.
        plan: sets this remedy's part of a training plan; None where retraining cannot apply it.
        changes_weights: whether `apply` changes codes that are in use, so that it is only done where the user
            allows it.
        changes_model: whether a model retrained with it computes something else than the user's source, so
            that it is only applied where it is asked for by name.
        writes_codes: whether a retraining with it only writes codes, which a codebook that is
            computed from other tensors cannot take.
        in_loss: its part of the loss of a training step: the "weight" of the VQ loss, or a "sum" with further
            terms or with a weight by gradients. A task's own step may leave neither to a retraining.
        after_training: whether it acts on a model that is trained already: it asks for no training.
    """

    stage: Stage
    doc: str = ""
    apply: Callable[[LayerArrays], str] | None = None
    plan: Callable[[TrainingPlan, PlanOptions], TrainingPlan] | None = None
    changes_weights: bool = False
    changes_model: bool = False
    writes_codes: bool = False
    in_loss: Literal["", "weight", "sum"] = ""
    after_training: bool = False
