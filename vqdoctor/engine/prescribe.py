"""From a report's findings to a training plan: which remedies, in the priority order, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from vqdoctor.core.errors import UserError
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies import Remedy

RECIPE = ("lower-vq-weight", "data-init", "warm-up", "revive-dead-codes")
"""What every retraining does unless it is skipped; a graft of the straight-through estimator joins it where
the estimator is missing."""
STARVING = ("VQ101", "VQ102", "VQ201")
"""Causes that, as errors, leave an encoder that did not learn from the task: it costs more to bring back than
to train anew (measured on 8×8 digits, 30 epochs with all remedies: accuracy 0.90 against 0.97)."""
FRESH_ENCODER = "wake-encoder"


@dataclass(frozen=True, kw_only=True)
class Prescribed:
    """One remedy, and what becomes of it.

    Attributes:
        remedy: the remedy.
        because: codes of the findings that ask for it; empty for one of the recipe, or asked for by name.
        layers: the layers of those findings; all layers where there are none.
        refused: why it is not part of the training plan; "" where it is.
    """

    remedy: Remedy
    because: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Prescription:
    """A training plan, and the remedies that make it, in the priority order.

    Attributes:
        untreated: the training plan without any remedy.
        plan: the training plan with those that are applied.
        remedies: what became of every remedy.
    """

    untreated: TrainingPlan
    plan: TrainingPlan
    remedies: tuple[Prescribed, ...]

    @property
    def applied(self) -> tuple[Prescribed, ...]:
        """The remedies that are part of the training plan."""
        return tuple(prescribed for prescribed in self.remedies if not prescribed.refused)


def prescribe(
    report: Report,
    remedies: Iterable[Remedy],
    plan: TrainingPlan,
    options: PlanOptions,
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
    weight_is_wished: bool = False,
) -> Prescription:
    """Return the training plan for a report, and what became of every remedy that it asks for.

    Args:
        report: the examination.
        remedies: all remedies.
        plan: the training plan without any remedy.
        options: what the remedies go by; its layers are all layers.
        only: names of remedies to apply, and no others; empty is the plan and the recipe.
        skip: names of remedies to leave out.
        weight_is_wished: whether the user set the weight of the VQ loss, which then is not raised.

    Raises:
        UserError: if a name is no remedy's, or names one that retraining cannot apply.
    """
    known = {remedy.name: remedy for remedy in remedies}
    for name in (*only, *skip):
        if name not in known:
            trained = sorted(name for name, remedy in known.items() if remedy.plan is not None)
            raise UserError(f"there is no remedy {name!r}", f"retraining has {', '.join(trained)}")
    for name in only:
        if known[name].plan is None:
            raise UserError(f"retraining cannot apply {name}", known[name].how)
    asked = _asked(report)
    names = dict.fromkeys(only or (*asked, *_recipe(report)))
    ordered = sorted((known[name] for name in names), key=lambda remedy: (remedy.stage, remedy.name))
    found = []
    untreated = plan
    for remedy in ordered:
        because = asked.get(remedy.name, {})
        layers = tuple(dict.fromkeys(layer for layers in because.values() for layer in layers))
        refused = _refused(remedy, only, skip, weight_is_wished)
        prescribed = Prescribed(
            remedy=remedy, because=tuple(sorted(because)), layers=layers or options.layers, refused=refused
        )
        found.append(prescribed)
        if not refused and remedy.plan is not None:
            plan = remedy.plan(plan, replace(options, layers=prescribed.layers))
    return Prescription(untreated=untreated, plan=plan, remedies=tuple(found))


def _asked(report: Report) -> dict[str, dict[str, list[str]]]:
    """Return remedy to code to layers, for the remedies that any finding above a note asks for.

    A symptom goes with its cause: of its own remedies only those of the recipe are meant. A stalled EMA's
    few updates, for one, need a faster EMA and not 200 epochs.
    """
    asked: dict[str, dict[str, list[str]]] = {}
    for finding in report.findings:
        if finding.severity > Severity.NOTE:
            for name in finding.remedies:
                if finding.explained_by is not None and name not in RECIPE:
                    continue
                layers = asked.setdefault(name, {}).setdefault(finding.code, [])
                if finding.layer is not None:
                    layers.append(finding.layer)
    for finding in report.roots():
        if finding.severity == Severity.ERROR and finding.code in STARVING:
            layers = asked.setdefault(FRESH_ENCODER, {}).setdefault(finding.code, [])
            if finding.layer is not None:
                layers.append(finding.layer)
    return asked


def _recipe(report: Report) -> tuple[str, ...]:
    return RECIPE if report.layers else ()


def _refused(remedy: Remedy, only: Collection[str], skip: Collection[str], weight_is_wished: bool) -> str:
    if remedy.name in skip:
        return "left out, as asked"
    if remedy.plan is None:
        return f"retraining cannot apply it: {remedy.how}"
    if remedy.changes_model and remedy.name not in only:
        return f"it changes the model, so it is only done when asked for (--only {remedy.name})"
    if remedy.name == "raise-vq-weight" and weight_is_wished:
        return "the weight is as asked"
    return ""
