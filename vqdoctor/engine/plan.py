"""From findings to the plan: which remedies, in the priority order, and why.

The report prints this plan, and `fix --retrain` trains it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from vqdoctor.checks import all_checks
from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import TaskMetrics
from vqdoctor.core.finding import Finding
from vqdoctor.core.levels import Confidence, Severity
from vqdoctor.core.report import LayerSummary, Report
from vqdoctor.core.settings import Settings
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.engine.weights import LOWER_WEIGHT, RAISE_WEIGHT, Weights
from vqdoctor.engine.wording import in_their_words
from vqdoctor.remedies import Remedy, with_advice
from vqdoctor.training.plan import (
    AUTOENCODER,
    CALIBRATE,
    ESTIMATOR,
    FRESH_ENCODER,
    FRESH_START,
    Plan,
    PlannedRemedy,
)

EPOCHS = 50
"""Epochs at most, where neither the user nor a remedy says how many."""
MOST_EPOCHS = 200
"""Epochs at most, where the user does not say how many and the task loss still falls at the end of them."""
COMMITMENT = "commitment-term"
SPREAD = "spread-duplicates"
DATA_INIT = "data-init"
RECIPE = (LOWER_WEIGHT, DATA_INIT, "warm-up", "revive-dead-codes")
"""The remedies of every retraining; a straight-through estimator joins them where one is missing. A codebook
that a cause has emptied stays empty once the cause is gone, so the cause's own remedy is not enough. A task
with labels learns without VQ first: twelve sick classifiers of digits and motion windows came to a mean
accuracy of 0.919 so, to 0.913 at once, and to 0.923 without VQ at all (fault bench, seed 909, 50 epochs)."""
STARVING = ("VQ101", "VQ102", "VQ201")
"""Causes that, as errors, leave an encoder that did not learn from the task: it costs more to bring back than
to train anew (measured on 8×8 digits, 30 epochs with all remedies: accuracy 0.90 against 0.97)."""
RUNAWAY = ("VQ205", "VQ206", "VQ310")
"""Causes that, as errors, leave a z_e that nothing held at the codes, and a model that was trained behind it
(measured on motion windows, 50 epochs: accuracy 0.53 from the checkpoint; mean of seeds 1 and 2: 0.834 with a
new encoder, 0.854 from scratch, 0.860 without VQ)."""
UNSOUND = (*RUNAWAY, "VQ309")
"""Causes that, as errors, have the EMA taken over. The model learns without VQ before its codes are placed
anew (measured on motion windows, VQ310, seeds 0 and 1, mean of epochs 25 to 50: accuracy 0.830 at once, 0.848
after ten epochs without VQ, 0.858 without VQ at all; VQ309, seed 0, epoch 50: 0.827, 0.881 and 0.851)."""
STUCK = ("VQ103", "VQ404")
"""Causes that, as errors, leave a model that was thrown off by steps that were too large, or trained around
codes that never moved (of these, with 50 epochs at most: accuracy 0.930 from the checkpoint and 0.962 from
scratch on 8×8 digits, 0.576 and 0.624 on classes of photos; without VQ 0.988 and 0.666)."""
ALONE = "it ends a retraining, and nothing asks for one"
"""Why a remedy for a trained model is left out where no other one is applied."""
AT_CHANCE = "VQ607"
"""The finding on a model that has learned nothing of its task: what it holds is no better than a start."""


def make_plan(
    findings: Sequence[Finding],
    layers: Sequence[str],
    settings: Settings | None = None,
    *,
    seed: int = 0,
    trained_vq_weight: float | None = None,
    remedies: Sequence[Remedy] | None = None,
    summaries: Sequence[LayerSummary] = (),
    weights: Mapping[str, Weights] | None = None,
    unwritable: Mapping[str, str] | None = None,
    by_logits: Collection[str] = (),
    unable: Mapping[str, str] | None = None,
    unmet: bool = False,
    joins: Sequence[str] = (),
) -> Plan:
    """Return the plan for ranked findings.

    A finding above a note asks for its remedies; a symptom, which goes with its cause, asks only for those of
    the recipe. A remedy that a finding asks for opens the plan; the recipe joins where one of these remedies
    acts. Advice alone (on the file, the data loader, the calibration) needs no retraining, and neither does a
    healthy model: their plans hold no more.

    Args:
        findings: the findings of an examination, in rank order.
        layers: all layers that a retraining can watch.
        settings: the user's settings of a retraining; None is the defaults, as for the plan of `inspect`.
        seed: seed of the training.
        trained_vq_weight: the weight of the VQ loss in the training so far; None is unknown.
        remedies: the remedies to choose from; None is all of them.
        summaries: the layers of the report, whose names the code of the remedies takes on.
        weights: the weights of their VQ losses, where the task's is known.
        unwritable: layers whose codes a training cannot place, each with the reason.
        by_logits: layers whose codes are chosen by logits, wherever they lie: placing them helps none.
        unable: remedies that this training cannot take, each with the reason.
        unmet: whether a goal is missed: where no finding asks for a remedy that acts, those of notes and the
            recipe are left to try.
        joins: what the task adds to the recipe: see `joining`.

    Raises:
        UserError: if a remedy is unknown, or a retraining cannot apply it.
    """
    settings, unable, unwritable = settings or Settings(), unable or {}, unwritable or {}
    known = {remedy.name: remedy for remedy in (with_advice(all_checks()) if remedies is None else remedies)}
    _require_remedies(settings, known)
    writing = {name for name, remedy in known.items() if remedy.writes_codes}
    unable = {**dict.fromkeys(writing, why), **unable} if (why := _unwritten(layers, unwritable)) else unable

    def helps(name: str, causes: Sequence[Finding] = ()) -> bool:
        on = {*_on(causes, layers)}
        return name not in writing or not on or not on <= {*by_logits}

    asked = {name: causes for name, causes in _asked(findings, known).items() if helps(name, causes)}
    acts = _acts(asked, known)
    if unmet and not acts:
        noted = _asked(findings, known, Severity.NOTE).items()
        asked |= {name: on for name, on in noted if helps(name, on) and _acts([name], known)}
    recipe = [*filter(helps, _recipe(asked, layers, settings, acts=acts, unmet=unmet))]
    joined = [name for name in joins if recipe and (name != AUTOENCODER or DATA_INIT in recipe)]
    names = settings.only or (*asked, *recipe, *joined)
    ordered = sorted((known[name] for name in {*names}), key=lambda remedy: (remedy.stage, remedy.name))
    opens = next((one for one in ordered if one.name in asked and not one.after_training), None)
    ordered.sort(key=lambda remedy: remedy is not opens)
    bounded = settings.epochs is not None or settings.steps is not None
    untreated = _untreated(settings, seed, trained_vq_weight)
    planned = []
    for remedy in ordered:
        on = _on(asked.get(remedy.name, ()), layers)
        code = in_their_words(remedy, [layer for layer in summaries if layer.name in on], weights)
        why = _refused(remedy, settings, _unwritten(on, unwritable)) or unable.get(remedy.name, "")
        because = tuple(sorted({finding.code for finding in asked.get(remedy.name, ())}))
        own = replace(remedy, code=code)
        planned.append(PlannedRemedy(remedy=own, because=because, layers=on, refused=why))
    return Plan(
        untreated=untreated,
        options=PlanOptions(
            layers=tuple(layers),
            vq_weight=settings.vq_weight,
            balanced=settings.balanced,
            warm_up_epochs=settings.warm_up_epochs,
            epochs=untreated.epochs if bounded else None,
            most_epochs=untreated.epochs if bounded else MOST_EPOCHS,
        ),
        remedies=_blocking(_not_alone(planned), findings, settings, unable),
        unable=unable,
    )


def joining(report: Report, max_loss: float | None = None) -> tuple[str, ...]:
    """Return the remedies that a task adds to the recipe, by the examination of its model.

    A model that can learn without VQ does so before its codes are placed, and one whose class scores were
    seen is calibrated at the end.

    Args:
        report: the examination.
        max_loss: the goal of the task loss that the user gives.
    """
    told = report.find(TaskMetrics)
    last = (CALIBRATE,) if told is not None and told.ece is not None else ()
    return (AUTOENCODER, *last) if learns_without_vq(report, max_loss) else last


def learns_without_vq(report: Report, max_loss: float | None = None) -> bool:
    """Whether a model that was seen without VQ is to learn so before its codes are placed.

    A model without labels does where a goal comes from its training without VQ, which is then the warm-up.

    Args:
        report: its examination.
        max_loss: the goal of its task loss that the user gives.
    """
    told = report.find(TaskMetrics)
    if told is None or told.bypass_loss is None:
        return False
    return told.bypass_accuracy is not None or max_loss is None


def _not_alone(planned: Sequence[PlannedRemedy]) -> Sequence[PlannedRemedy]:
    """Return the remedies; those that end a training are refused where no other one is applied."""
    if any(not (one.refused or one.remedy.after_training) for one in planned):
        return planned
    return [replace(one, refused=one.refused or f"{ALONE}: {one.remedy.how}") for one in planned]


def _untreated(settings: Settings, seed: int, trained_vq_weight: float | None) -> TrainingPlan:
    """Return the training without any remedy."""
    epochs = min(EPOCHS if settings.epochs is None else settings.epochs, settings.steps or 2**63)
    return TrainingPlan(
        epochs=epochs,
        steps=0 if settings.steps is None else settings.steps // epochs,
        seed=seed,
        vq_weight=1.0 if trained_vq_weight is None else trained_vq_weight,
    )


def _blocking(
    planned: Sequence[PlannedRemedy],
    findings: Iterable[Finding],
    settings: Settings,
    unable: Mapping[str, str],
) -> tuple[PlannedRemedy, ...]:
    """Return the remedies, and mark those without which a training is a waste.

    A cause in the source is sure, and none of its other remedies acts in a training. A missing estimator is
    such a cause where the training can put none in.
    """
    acting = {one.remedy.name for one in planned if not one.refused}
    alone = [
        {*finding.remedies}
        for finding in findings
        if finding.explained_by is None
        and finding.severity > Severity.NOTE
        and finding.confidence is Confidence.HIGH
        and acting.isdisjoint(finding.remedies)
    ]
    names = set().union(*alone) - {*settings.skip} if not settings.only else set()
    stands = {one.remedy.name for one in planned if one.remedy.in_source}
    stands |= {ESTIMATOR} & {*unable}
    return tuple(replace(one, blocks=one.remedy.name in stands & names) for one in planned)


def _require_remedies(settings: Settings, known: Mapping[str, Remedy]) -> None:
    """Refuse unknown remedies, and remedies that a retraining cannot apply."""
    for name in (*settings.only, *settings.skip):
        if name not in known:
            trained = sorted(name for name, remedy in known.items() if remedy.plan is not None)
            raise UserError(f"there is no remedy {name!r}", f"retraining has {', '.join(trained)}")
    for name in settings.only:
        if known[name].plan is None:
            raise UserError(f"retraining cannot apply {name}", known[name].how)
    if settings.only and all(known[name].after_training for name in settings.only):
        name = settings.only[0]
        raise UserError(f"retraining cannot apply {name} alone: it ends a training", known[name].how)


def _asked(
    findings: Sequence[Finding], known: Mapping[str, Remedy], least: Severity = Severity.WARNING
) -> dict[str, list[Finding]]:
    """Return the findings from `least` on that ask for each remedy, by its name.

    A change of the model must be a finding's first remedy: as a further one it is left to a person.
    Of a symptom's own remedies only those of the recipe count. A stalled EMA's few updates, for one, need a
    faster EMA and not 200 epochs. Copies of codes under broken EMA sums stay copies once the sums are right.
    """
    asked: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.severity >= least:
            root = finding.explained_by is None
            kept = (*RECIPE, SPREAD) if finding.explained_by == f"VQ303:{finding.layer}" else RECIPE
            names = [name for name in finding.remedies if root or name in kept]
            if root and finding.severity is Severity.ERROR:
                names += [FRESH_ENCODER] * (finding.code in STARVING)
                names += [FRESH_START] * (finding.code in (*RUNAWAY, *STUCK))
                names += [AUTOENCODER] * (finding.code in UNSOUND)
            for name in dict.fromkeys(names):
                asked.setdefault(name, []).append(finding)
    for name in [name for name in asked if known[name].changes_model]:
        if all(finding.remedies[0] != name for finding in asked[name]):
            del asked[name]
    unlearned = [f for f in findings if f.code == AT_CHANCE and f.severity is Severity.ERROR]
    if unlearned and FRESH_ENCODER not in asked:
        asked.setdefault(FRESH_START, []).extend(unlearned)
    return asked


def _acts(names: Iterable[str], known: Mapping[str, Remedy]) -> bool:
    """Whether one of these remedies does something, to a model that stays what it is."""
    able = (known[name] for name in names)
    remedies = [one for one in able if not (one.changes_model or one.after_training)]
    return any(remedy.plan or remedy.apply for remedy in remedies)


def _recipe(
    asked: Iterable[str], layers: Sequence[str], settings: Settings, *, acts: bool, unmet: bool
) -> tuple[str, ...]:
    """Return the part of the recipe that joins the remedies that are asked for.

    Args:
        asked: the names of these remedies.
        layers: all layers that a retraining can watch.
        settings: the user's settings.
        acts: whether a finding above a note asks for one that acts.
        unmet: whether a goal is missed.
    """
    weight_is_set = _weight_is_set(settings)
    if not layers or not (acts or unmet):
        return (LOWER_WEIGHT,) if layers and weight_is_set else ()
    # A weight that is too light, that of a loss without its commitment term, or one that no finding speaks
    # against is not lowered.
    light = {RAISE_WEIGHT, COMMITMENT} & {*asked} - {*settings.skip} or not acts
    return RECIPE[1:] if light and not weight_is_set else RECIPE


def _weight_is_set(settings: Settings) -> bool:
    return settings.vq_weight is not None or settings.balanced


def _on(causes: Iterable[Finding], layers: Sequence[str]) -> tuple[str, ...]:
    """Return the layers that a remedy is for: those of its findings, or all where these name none."""
    return tuple(dict.fromkeys(f.layer for f in causes if f.layer is not None)) or tuple(layers)


def _unwritten(layers: Collection[str], unwritable: Mapping[str, str]) -> str:
    """Return why none of these layers can have its codes placed; "" where one can, or there is none."""
    whys = [unwritable.get(name, "") for name in layers]
    return "" if "" in whys else "; ".join(dict.fromkeys(whys))


def _refused(remedy: Remedy, settings: Settings, unwritten: str) -> str:
    """Return why a retraining leaves a remedy out; "" where it applies it.

    Args:
        remedy: the remedy.
        settings: the user's settings.
        unwritten: why the codes of none of its layers can be placed; "" where those of one can.
    """
    if remedy.name in settings.skip:
        return "left out, as asked"
    if remedy.plan is None:
        return f"retraining cannot apply it: {remedy.how}"
    if remedy.changes_model and remedy.name not in settings.only:
        return f"it changes the model, so it is only done when asked for (--only {remedy.name})"
    if remedy.writes_codes and unwritten:
        return unwritten
    if remedy.name == RAISE_WEIGHT and _weight_is_set(settings):
        return "the weight is as asked"
    return ""
