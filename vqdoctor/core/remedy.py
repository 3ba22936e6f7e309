"""What a remedy is: what it does to which causes, in words, in lines of code, and how safely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """One remedy. One file in `remedies/` defines one, as `REMEDY`.

    Attributes:
        name: what it does, in a few words with dashes.
        stage: its place in the priority order of the plan.
        safety: whether it may be applied unasked.
        addresses: codes of the checks whose causes it mends.
        how: one sentence: what to do.
        code: the two or three lines that do it, or the command; "" for plain advice.
        doc: the module's docstring: why it helps, and what to watch.
        apply: changes one VQ layer's `layouts.layer_arrays.LayerArrays` in place, and returns "", or why it
            changed nothing; None where a file alone cannot take the remedy.
        plan: sets this remedy's part of a training plan; None where retraining cannot apply it.
        changes_model: whether a model retrained with it computes something else than the user's source, so
            that it is only applied where it is asked for by name.
    """

    name: str
    stage: Stage
    safety: Safety
    addresses: tuple[str, ...]
    how: str
    code: str = ""
    doc: str = ""
    apply: Callable[[Any], str] | None = None
    plan: Callable[[TrainingPlan, PlanOptions], TrainingPlan] | None = None
    changes_model: bool = False
