"""From hand-made findings to the plan, which is printed and trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import TaskMetrics
from vqdoctor.core.finding import Finding
from vqdoctor.core.levels import Confidence, Severity, Stage
from vqdoctor.core.settings import Settings
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.engine.plan import ALONE, RECIPE, joining, learns_without_vq, make_plan
from vqdoctor.remedies import Remedy
from vqdoctor.training.outcome import Outcome
from vqdoctor.training.plan import Plan
from vqdoctor.training.run import ALIKE
from vqdoctor.training.trial import Tried, _contestants

PLAIN = TrainingPlan(vq_weight=1.0, further_epochs=150)
LAYERS = ("one", "two")
WARM_UP, CALIBRATE = "autoencoder-warm-up", "calibrate"


def finding(code: str, *remedies: str, layer: str | None = "one", **more: Any) -> Finding:
    return Finding(
        code=code,
        name=code.lower(),
        stage=Stage(int(code[2])),
        severity=more.pop("severity", Severity.ERROR),
        confidence=Confidence.HIGH,
        layer=layer,
        message="…",
        remedies=remedies,
        **more,
    )


def planned(*findings: Finding, **more: Any) -> Plan:
    return make_plan(findings, LAYERS, Settings(**more), trained_vq_weight=PLAIN.vq_weight)


def names(found: Plan) -> Sequence[str]:
    return [p.remedy.name for p in found.applied]


def test_the_recipe_is_in_the_priority_order() -> None:
    found = planned(finding("VQ101", "straight-through"))
    assert names(found) == ["straight-through", *RECIPE, "wake-encoder"]
    stages = [p.remedy.stage for p in found.remedies]
    assert stages == sorted(stages)


def test_the_estimator_is_grafted_where_it_is_missing_and_nowhere_else() -> None:
    found = planned(finding("VQ101", "straight-through", layer="two"))
    assert found.training.estimators == {"two": "straight-through"}
    assert planned(finding("VQ502", "revive-dead-codes")).training.estimators == {}


def test_the_training_plan_holds_what_the_recipe_says() -> None:
    plan = planned(finding("VQ501", "data-init")).training
    assert (plan.vq_weight, plan.warm_up_epochs, plan.data_init) == (0.1, 10, True)
    assert (plan.revive_under, plan.decay, plan.start) == (0.1, None, "checkpoint")


def test_a_task_with_labels_learns_without_vq_before_its_codes_are_placed() -> None:
    sick, light = finding("VQ501", "data-init"), finding("VQ403", "shuffle")
    assert planned(sick).training.bypass_epochs == 0
    found = make_plan([sick], LAYERS, joins=(WARM_UP,))
    assert found.training.bypass_epochs == 15
    assert names(found).index("autoencoder-warm-up") < names(found).index("warm-up")
    assert make_plan([sick], LAYERS, Settings(epochs=10), joins=(WARM_UP,)).training.bypass_epochs == 3
    assert make_plan([], LAYERS, joins=(WARM_UP,)).remedies == ()
    chosen = make_plan([light], LAYERS, joins=(WARM_UP,), by_logits=LAYERS)
    assert chosen.training.bypass_epochs == 0, "no codes of it can be placed"


def refused(plan: Plan) -> set[str]:
    return {one.remedy.name for one in plan.remedies if one.refused}


def test_a_training_without_vq_is_the_warm_up() -> None:
    """A remedy that it leaves without an effect is not told as applied."""
    starved = make_plan([finding("VQ101"), finding("VQ501", "data-init")], LAYERS, joins=(WARM_UP,))
    better = starved.begun(better_without_vq=True)
    assert (better.training.start, better.training.bypass_epochs) == ("without-vq", 0)
    assert refused(better) - refused(starved) == {"wake-encoder"}
    assert starved.begun(better_without_vq=None) is starved

    placed = make_plan([finding("VQ501", "data-init")], LAYERS, joins=(WARM_UP,))
    as_good = placed.begun(better_without_vq=False)
    assert (as_good.training.start, as_good.training.bypass_epochs) == ("checkpoint", 0)
    assert refused(as_good) - refused(placed) == {"autoencoder-warm-up"}

    anew = make_plan([finding("VQ310", "sound-ema")], LAYERS, joins=(WARM_UP,))
    assert anew.training.start == "scratch", "a fresh model that learns without VQ is the one that did"
    assert anew.begun(better_without_vq=False).training.start == "without-vq"

    short = make_plan([finding("VQ501", "data-init")], LAYERS, Settings(epochs=2), joins=(WARM_UP,))
    assert short.training.bypass_epochs == 0
    assert short.begun(better_without_vq=True).training.start == "without-vq"
    skipped = make_plan([finding("VQ501")], LAYERS, Settings(skip=("autoencoder-warm-up",)), joins=(WARM_UP,))
    assert skipped.begun(better_without_vq=True).training.start == "checkpoint"


@pytest.mark.parametrize(
    ("accuracy", "loss", "max_loss", "learns"),
    [(0.9, 0.2, 0.1, True), (None, 0.2, None, True), (None, 0.2, 0.1, False), (None, None, None, False)],
)
def test_a_model_learns_without_vq_where_that_training_sets_its_goal(
    accuracy: float | None, loss: float | None, max_loss: float | None, learns: bool
) -> None:
    told = replace(TaskMetrics.HEALTHY, bypass_accuracy=accuracy, bypass_loss=loss)
    report = SimpleNamespace(find=lambda kind: told if kind is TaskMetrics else None)
    assert learns_without_vq(cast("Any", report), max_loss) is learns


@pytest.mark.parametrize("code", ["VQ101", "VQ102", "VQ201"])
def test_a_starved_encoder_is_built_anew(code: str) -> None:
    assert planned(finding(code)).training.start == "fresh-encoder"
    assert planned(finding(code, severity=Severity.WARNING)).training.start == "checkpoint"
    assert planned(finding(code, explained_by="VQ901:one")).training.start == "checkpoint"
    assert planned(finding(code), skip=("wake-encoder",)).training.start == "checkpoint"


@pytest.mark.parametrize("code", ["VQ205", "VQ206", "VQ310"])
def test_a_model_behind_a_runaway_encoder_is_built_anew(code: str) -> None:
    found = planned(finding(code, "sound-ema")).training
    assert (found.start, found.bypass_epochs) == ("scratch", 15)
    skipped = planned(finding(code, "sound-ema"), skip=("autoencoder-warm-up",)).training
    assert (skipped.start, skipped.bypass_epochs) == ("scratch", 0)
    assert planned(finding(code, severity=Severity.WARNING)).training.start == "checkpoint"


def test_a_wrong_ema_is_taken_over_and_the_encoder_kept() -> None:
    found = planned(finding("VQ309", "sound-ema", "sound-ema-rule"))
    assert (found.training.sound_ema, found.training.start) == (True, "checkpoint")
    assert found.training.bypass_epochs == 15
    assert not planned(finding("VQ501", "data-init")).training.sound_ema
    refused = {p.remedy.name for p in found.remedies if p.refused}
    assert refused == {"sound-ema-rule"}  # the lines that are left in the source


def test_what_retraining_cannot_do_is_skipped_with_the_reason() -> None:
    found = planned(finding("VQ102", "reattach-encoder"))
    refused = {p.remedy.name: p.refused for p in found.remedies if p.refused}
    assert set(refused) == {"reattach-encoder"}
    assert refused["reattach-encoder"].startswith("retraining cannot apply it: ")


@pytest.mark.parametrize(
    ("code", "remedy", "severity"),
    [
        ("VQ102", "reattach-encoder", Severity.ERROR),
        ("VQ105", "permute-before-flatten", Severity.ERROR),
        ("VQ106", "detach-residual", Severity.WARNING),
    ],
)
def test_a_cause_that_stands_in_the_source_blocks_a_training(
    code: str, remedy: str, severity: Severity
) -> None:
    cause = finding(code, remedy, severity=severity)
    found = planned(cause, finding("VQ502", "data-init"))
    assert [p.remedy.name for p in found.blocking] == [remedy]
    assert planned(cause, skip=(remedy,)).blocking == ()
    assert planned(cause, only=("data-init",)).blocking == ()
    assert planned(cause.replace(confidence=Confidence.MEDIUM)).blocking == ()
    assert planned(cause.replace(severity=Severity.NOTE)).blocking == ()
    assert planned(cause.replace(explained_by="VQ101:one")).blocking == ()


def test_a_goal_that_is_missed_without_a_finding_brings_the_recipe_and_the_remedies_of_notes() -> None:
    decay = finding("VQ308", "exempt-codebook", severity=Severity.NOTE)
    plan_file = finding("VQ903", "save-optimizer-state", severity=Severity.NOTE)
    assert make_plan([decay, plan_file], LAYERS).remedies == ()
    found = make_plan([decay, plan_file], LAYERS, unmet=True)
    assert {*names(found)} == {"exempt-codebook", *RECIPE[1:]} and found.training.exempt_codebook
    assert {p.remedy.name for p in found.remedies} == {*names(found)}, "advice in a note is no step"
    sick = finding("VQ502", "revive-dead-codes")
    assert names(make_plan([sick, decay], LAYERS, unmet=True)) == names(planned(sick))


def test_a_rate_that_was_too_high_is_lowered_and_the_model_built_anew() -> None:
    thrown = finding("VQ404", "lower-learning-rate", layer=None)
    found = planned(thrown).training
    assert (found.usual_rate, found.start) == (True, "scratch")
    assert {*ALIKE} <= {field.name for field in fields(found)}


def test_a_model_at_chance_starts_anew_unless_its_encoder_does() -> None:
    unlearned = finding("VQ607", "begin-with-the-task", layer=None, explained_by="VQ403:one")
    sorted_data = finding("VQ403", "shuffle", layer=None)
    found = planned(sorted_data, unlearned).training
    assert (found.start, found.shuffled) == ("scratch", True)
    assert planned(finding("VQ101", "straight-through"), unlearned).training.start == "fresh-encoder"
    assert planned(sorted_data, unlearned.replace(severity=Severity.WARNING)).training.start == "checkpoint"


def test_advice_that_a_training_can_do_without_blocks_nothing() -> None:
    assert planned(finding("VQ403", "shuffle", layer=None), finding("VQ603", "calibrate")).blocking == ()


def test_codes_without_a_gradient_are_moved_by_an_ema_where_they_can_be_written() -> None:
    still = finding("VQ103", "train-codebook", "codes-by-ema")
    found = planned(still)
    assert found.training.sound_ema and found.blocking == ()
    assert found.training.start == "scratch", "the model was trained around codes that stood still"
    assert planned(still.replace(severity=Severity.WARNING)).training.start == "checkpoint"
    computed = make_plan([still], LAYERS, unwritable={"one": "its vectors are not seen"})
    assert not computed.training.sound_ema
    assert [p.remedy.name for p in computed.blocking] == ["train-codebook"]


def test_codes_that_no_training_can_place_are_not_placed() -> None:
    dead = finding("VQ502", "revive-dead-codes", layer=None)
    unseen = make_plan([dead], LAYERS, unwritable=dict.fromkeys(LAYERS, "its vectors are not seen"))
    refused = {p.remedy.name: p.refused for p in unseen.remedies if p.refused}
    assert refused == dict.fromkeys(("data-init", "revive-dead-codes"), "its vectors are not seen")
    assert {*refused} <= {*unseen.unable}, "and no trial draws them"
    one_is_seen = make_plan([dead], LAYERS, unwritable={"one": "its vectors are not seen"})
    assert one_is_seen.training.data_init and one_is_seen.training.revive_under


def test_codes_chosen_by_logits_are_not_placed() -> None:
    dead = finding("VQ502", "revive-dead-codes")
    assert make_plan([dead], LAYERS, by_logits=LAYERS).remedies == ()
    other = make_plan([dead.replace(layer="two")], LAYERS, by_logits=["one"])
    assert other.training.revive_under


def test_a_loss_without_commitment_gets_the_term_and_keeps_its_weight() -> None:
    free = finding("VQ205", "add-vq-loss", "commitment-term", severity=Severity.WARNING)
    found = planned(free).training
    assert (found.commitment, found.vq_weight, found.start) == (0.25, 1.0, "checkpoint")
    assert found.data_init and planned(free).blocking == ()
    none = make_plan([free], LAYERS, trained_vq_weight=0.0).training
    assert (none.commitment, none.vq_weight) == (0.25, 0.1)
    assert planned(free, vq_weight=0.3).training.vq_weight == 0.3


def test_what_changes_the_model_is_only_done_when_asked_for_by_name() -> None:
    drifting = finding("VQ202", "raise-vq-weight", "normalise-before-vq", severity=Severity.WARNING)
    assert "normalise-before-vq" not in names(planned(drifting))
    assert planned(drifting, only=("normalise-before-vq",)).training == replace(
        PLAIN, geometry="unit-variance"
    )


def test_a_weight_that_is_too_light_is_balanced_unless_another_is_asked_for() -> None:
    light = finding("VQ202", "raise-vq-weight", severity=Severity.WARNING)
    assert planned(light).training.balanced
    assert not planned(light, vq_weight=0.3).training.balanced


def test_more_updates_are_more_epochs_unless_the_user_says_how_many() -> None:
    stalled = finding("VQ302", "more-updates")
    assert (planned(stalled).training.epochs, planned(stalled).training.further_epochs) == (200, 0)
    asked = planned(stalled, epochs=PLAIN.epochs).training
    assert (asked.epochs, asked.further_epochs) == (PLAIN.epochs, 0)


def test_a_budget_in_steps_is_cut_into_epochs_and_never_exceeded() -> None:
    sick = finding("VQ501", "data-init")
    for steps, epochs, each in ((10_000, 50, 200), (1_030, 50, 20), (7, 7, 1)):
        found = planned(sick, steps=steps).training
        assert (found.epochs, found.steps, found.further_epochs) == (epochs, each, 0)
        assert found.epochs * found.steps <= steps
    assert planned(sick, steps=1_000, epochs=10).training.steps == 100
    assert planned(finding("VQ302", "more-updates"), steps=1_000).training.epochs == 50


def test_of_a_symptom_only_the_recipe_is_meant() -> None:
    stalled = finding("VQ302", "faster-ema")
    few = finding("VQ401", "more-updates", "data-init", explained_by="VQ302:one")
    found = planned(stalled, few)
    assert "more-updates" not in names(found) and "faster-ema" in names(found)
    assert {p.remedy.name: p.because for p in found.remedies}["data-init"] == ("VQ401",)


@pytest.mark.parametrize(("cause", "kept"), [("VQ303:one", True), ("VQ301:one", False)])
def test_copies_of_codes_are_still_spread_where_the_ema_sums_are_wrong(cause: str, kept: bool) -> None:
    copies = finding("VQ503", "spread-duplicates", explained_by=cause)
    found = planned(finding(cause[:5], "reset-ema"), copies)
    assert ("spread-duplicates" in [step.remedy for step in found.steps]) is kept


def test_notes_ask_for_nothing() -> None:
    found = planned(finding("VQ401", "more-updates", severity=Severity.NOTE))
    assert found.remedies == found.steps == ()
    assert found.training == PLAIN


@pytest.mark.parametrize(("code", "advice"), [("VQ902", "save-plain-state-dict"), ("VQ603", "calibrate")])
def test_advice_alone_brings_no_recipe(code: str, advice: str) -> None:
    found = planned(finding(code, advice, severity=Severity.WARNING))
    assert [step.remedy for step in found.steps] == [advice]
    assert found.training == PLAIN


def test_a_classifier_is_calibrated_where_it_is_trained_and_at_its_end() -> None:
    sick = finding("VQ501", "data-init")
    found = make_plan([sick], LAYERS, joins=(CALIBRATE,))
    assert names(found)[-1] == CALIBRATE and found.training.calibrated
    assert not make_plan([sick], LAYERS).training.calibrated
    assert make_plan([], LAYERS, joins=(CALIBRATE,)).remedies == ()
    unmet = make_plan([finding("VQ603", CALIBRATE)], LAYERS, unmet=True, joins=(CALIBRATE,))
    assert names(unmet)[-1] == CALIBRATE and unmet.remedies[0].remedy.name != CALIBRATE


def test_a_calibration_alone_is_no_reason_to_train() -> None:
    (alone,) = planned(finding("VQ603", CALIBRATE, severity=Severity.WARNING)).remedies
    assert alone.refused.startswith(ALONE)
    with pytest.raises(UserError, match="cannot apply calibrate alone"):
        planned(finding("VQ501"), only=(CALIBRATE,))


def test_a_trial_has_no_arm_for_what_ends_every_training() -> None:
    found = make_plan([finding("VQ501", "data-init")], LAYERS, joins=(CALIBRATE,))
    arms = _contestants(found)
    assert all(arm.plan.calibrated for arm in arms)
    assert not any(CALIBRATE in arm.remedies for arm in arms)
    tried = Tried(arms=(), plan=arms[1].plan, names=arms[1].remedies)
    assert [one.remedy.name for one in tried.planned(found)][-1] == CALIBRATE


@pytest.mark.parametrize(
    ("told", "joined"),
    [
        (None, ()),
        (TaskMetrics.healthy(ece=None, bypass_accuracy=None, bypass_loss=None), ()),
        (TaskMetrics.healthy(bypass_loss=None), (CALIBRATE,)),
        (TaskMetrics.healthy(), (WARM_UP, CALIBRATE)),
    ],
)
def test_the_task_says_what_joins_the_recipe(told: TaskMetrics | None, joined: tuple[str, ...]) -> None:
    report = SimpleNamespace(find=lambda _: told)
    assert joining(cast("Any", report)) == joined


def test_without_a_codebook_to_train_there_is_no_recipe() -> None:
    found = make_plan([finding("VQ501", "normalise-before-vq")], ())
    assert [step.remedy for step in found.steps] == ["normalise-before-vq"]


def test_a_weight_that_the_user_sets_is_trained_with_whatever_is_found() -> None:
    assert planned(vq_weight=0.3).training == replace(PLAIN, vq_weight=0.3)


def test_a_weight_that_is_too_light_is_not_lowered_first() -> None:
    light = finding("VQ202", "raise-vq-weight", severity=Severity.WARNING)
    assert not {"lower-vq-weight"} & set(names(planned(light)))
    assert "lower-vq-weight" in names(planned(light, vq_weight=0.3))


def test_the_steps_are_the_remedies_with_their_reasons() -> None:
    sick = finding("VQ101", "straight-through")
    symptom = finding("VQ502", "revive-dead-codes", explained_by="VQ101:one")
    advice = finding("VQ603", "calibrate", layer=None, severity=Severity.WARNING)
    found = planned(sick, symptom, advice)
    steps = {step.remedy: step.codes for step in found.steps}
    assert [step.step for step in found.steps] == list(range(1, len(steps) + 1))
    assert steps.keys() == {*names(found), "calibrate"}
    assert steps["straight-through"] == steps["wake-encoder"] == ("VQ101",)
    assert (steps["revive-dead-codes"], steps["data-init"], steps["calibrate"]) == (
        ("VQ502",),
        (),
        ("VQ603",),
    )


def test_only_and_skip() -> None:
    sick = finding("VQ101", "straight-through")
    assert names(planned(sick, only=("data-init",))) == ["data-init"]
    assert "warm-up" not in names(planned(sick, skip=("warm-up",)))


@pytest.mark.parametrize("name", ["no-such-thing", "reattach-encoder"])
def test_only_takes_remedies_that_retraining_can_apply(name: str) -> None:
    with pytest.raises(UserError, match=name):
        planned(only=(name,))


def remedy(name: str, stage: int) -> Remedy:
    return Remedy(name=name, stage=Stage(stage), how=f"do {name}")


@pytest.mark.parametrize("swap", [False, True])
def test_the_plan_is_the_roots_remedies_in_stage_order_each_once(swap: bool) -> None:
    found = [
        finding("VQ501", "init", "revive", layer="b"),
        finding("VQ101", "ste", "init", layer="a", severity=Severity.WARNING),
        finding("VQ603", "advice", layer=None, severity=Severity.NOTE),
        finding("VQ502", "never", "revive", layer="a", explained_by="VQ101:a"),
    ]
    remedies = [remedy("revive", 5), remedy("ste", 1), remedy("init", 3), remedy("never", 2)]
    steps = make_plan(found[::-1] if swap else found, LAYERS, remedies=remedies).steps
    assert [(s.step, s.remedy, s.codes) for s in steps] == [
        (1, "ste", ("VQ101",)),
        (2, "init", ("VQ101", "VQ501")),
        (3, "revive", ("VQ501",)),
    ]


def test_a_remedy_that_is_asked_for_opens_the_plan() -> None:
    found = names(planned(finding("VQ301", "data-init"), finding("VQ502", "revive-dead-codes")))
    assert found[0] == "data-init" and {*found} == {*RECIPE}
    assert list(found[1:]) == [name for name in RECIPE if name != "data-init"]


def test_what_a_training_cannot_take_is_left_out_with_its_reason() -> None:
    sick = finding("VQ301", "data-init")
    unable = {"warm-up": "there is no place for it", "entropy-term": "nor for this"}
    found = make_plan([sick], LAYERS, trained_vq_weight=0.5, unable=unable)
    assert {p.remedy.name: p.refused for p in found.remedies}["warm-up"] == "there is no place for it"
    assert found.training.warm_up_epochs == 0 and found.training.data_init
    tried = {name for arm in _contestants(found) for name in arm.remedies}
    assert "moment-matching" in tried and tried.isdisjoint(unable)


@pytest.mark.parametrize(("own_steps", "skip"), [(False, ()), (True, ()), (False, ("step-per-epoch",))])
def test_a_schedule_that_the_retraining_does_not_have_is_said_to_be_no_fault_of_it(
    own_steps: bool, skip: tuple[str, ...]
) -> None:
    plan = planned(finding("VQ406", "step-per-epoch", layer=None), skip=skip)
    outcome = Outcome(
        trainer=SimpleNamespace(task=SimpleNamespace(trains_itself=own_steps)),  # type: ignore[arg-type]
        plan=plan,
        retraining=SimpleNamespace(before=None, after=None, trial=(), written=True),  # type: ignore[arg-type]
    )
    (repair,) = outcome.repairs()
    assert repair.status == "skipped"
    without = not (own_steps or skip)
    assert repair.reason.startswith("the retraining held its learning rate") == without
    assert ("scheduler" in repair.reason) == (not skip)


@pytest.mark.parametrize(
    ("asked", "found_again", "codes"),
    [(None, ("VQ201",), ("VQ201",)), (None, (), ("VQ201",)), (3.0, ("VQ201",), ()), (3.0, (), ())],
)
def test_a_setting_is_left_in_the_source_until_it_is_changed_there(
    asked: float | None, found_again: tuple[str, ...], codes: tuple[str, ...]
) -> None:
    """A weight that the user asked for may be too heavy itself, and dead codes are no setting."""
    heavy, dead = finding("VQ201", "lower-vq-weight"), finding("VQ501", "data-init", "revive-dead-codes")
    outcome = Outcome(
        trainer=SimpleNamespace(codebooks=SimpleNamespace(led=("vq",))),  # type: ignore[arg-type]
        plan=planned(heavy, dead, vq_weight=asked),
        retraining=SimpleNamespace(),  # type: ignore[arg-type]
    )
    left = {change.codes for change in outcome.left_in_source(found_again) if "(VQ201)" in change.why}
    assert left == {codes}
    others = [change for change in outcome.left_in_source(found_again) if "(VQ501)" in change.why]
    assert others and not any(change.codes for change in others)
    *_, beside = outcome.left_in_source(found_again)
    assert "warm-up, revive-dead-codes, and an EMA that moved the codes of vq" in beside.why
    assert "counts < 0.1 * counts.mean()" in beside.code and not beside.codes
    assert "data-init" not in beside.why  # it has a change of its own


@pytest.mark.parametrize(
    ("given", "led", "recorded"), [(None, (), 0.9999), (0.95, (), 0.95), (None, ("vq",), None)]
)
def test_a_file_records_the_decay_of_the_sources_own_ema_where_nothing_else_moved_the_codes(
    given: float | None, led: tuple[str, ...], recorded: float | None
) -> None:
    outcome = Outcome(
        trainer=SimpleNamespace(steps=10, codebooks=SimpleNamespace(led=led)),  # type: ignore[arg-type]
        plan=planned(),
        retraining=SimpleNamespace(plan=TrainingPlan(decay=given), epochs=()),  # type: ignore[arg-type]
    )
    assert outcome.record(SimpleNamespace(updates=None), 0.9999)["decay"] == recorded  # type: ignore[arg-type]


def test_an_estimator_that_no_training_can_put_in_must_be_in_the_source_first() -> None:
    missing = finding("VQ101", "straight-through")
    why = {"straight-through": "the VQ loss is computed behind it"}
    found = make_plan([missing], LAYERS, trained_vq_weight=1.0, unable=why)
    assert [one.remedy.name for one in found.blocking] == ["straight-through"]
    assert planned(missing).blocking == ()


def test_a_change_of_the_model_is_planned_only_where_it_is_the_first_way_out() -> None:
    """What an inspection prints is what a retraining does: z_e far from the codes is met by new codes."""
    far = finding("VQ301", "data-init", "normalise-before-vq")
    assert "normalise-before-vq" not in [step.remedy for step in planned(far).steps]
    drifts = finding("VQ301", "normalise-before-vq", "data-init")
    assert "normalise-before-vq" in [step.remedy for step in planned(drifts).steps]
    assert "normalise-before-vq" in names(planned(far, only=("normalise-before-vq",)))
