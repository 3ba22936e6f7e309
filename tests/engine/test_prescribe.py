"""From hand-made findings to a training plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from vqdoctor.checks import all_checks
from vqdoctor.core.errors import UserError
from vqdoctor.core.finding import Finding
from vqdoctor.core.levels import Confidence, Severity, Stage
from vqdoctor.core.report import LayerSummary, Report
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.engine.prescribe import RECIPE, Prescription, prescribe
from vqdoctor.remedies import with_advice

REMEDIES = with_advice(all_checks())
PLAIN = TrainingPlan(vq_weight=1.0)
OPTIONS = PlanOptions(layers=("one", "two"))


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


def report(*findings: Finding) -> Report:
    layers = tuple(
        LayerSummary(name=name, layout="reference", layout_confidence="high", num_codes=8, dim=2)
        for name in OPTIONS.layers
    )
    return Report(
        version="0",
        checkpoint=None,
        layers=layers,
        evidence=(),
        unavailable=(),
        outcomes=(),
        findings=findings,
        plan=(),
        verdict="collapsed",
    )


def prescribed(*findings: Finding, **more: Any) -> Prescription:
    return prescribe(report(*findings), REMEDIES, PLAIN, OPTIONS, **more)


def names(found: Prescription) -> Sequence[str]:
    return [p.remedy.name for p in found.applied]


def test_the_recipe_is_in_the_priority_order() -> None:
    found = prescribed(finding("VQ101", "straight-through"))
    assert names(found) == ["straight-through", *RECIPE, "wake-encoder"]
    stages = [p.remedy.stage for p in found.remedies]
    assert stages == sorted(stages)


def test_the_estimator_is_grafted_where_it_is_missing_and_nowhere_else() -> None:
    found = prescribed(finding("VQ101", "straight-through", layer="two"))
    assert found.plan.estimators == {"two": "straight-through"}
    assert prescribed(finding("VQ502", "revive-dead-codes")).plan.estimators == {}


def test_the_course_holds_what_the_recipe_says() -> None:
    plan = prescribed(finding("VQ501", "data-init")).plan
    assert (plan.vq_weight, plan.warm_up_epochs, plan.data_init) == (0.1, 10, True)
    assert (plan.revive_under, plan.decay, plan.start) == (0.1, None, "checkpoint")


@pytest.mark.parametrize("code", ["VQ101", "VQ102", "VQ201"])
def test_a_starved_encoder_is_built_anew(code: str) -> None:
    assert prescribed(finding(code)).plan.start == "fresh-encoder"
    assert prescribed(finding(code, severity=Severity.WARNING)).plan.start == "checkpoint"
    assert prescribed(finding(code, explained_by="VQ901:one")).plan.start == "checkpoint"
    assert prescribed(finding(code), skip=("wake-encoder",)).plan.start == "checkpoint"


def test_what_retraining_cannot_do_is_skipped_with_the_reason() -> None:
    found = prescribed(finding("VQ102", "reattach-encoder"))
    refused = {p.remedy.name: p.refused for p in found.remedies if p.refused}
    assert set(refused) == {"reattach-encoder"}
    assert refused["reattach-encoder"].startswith("retraining cannot apply it: ")


def test_what_changes_the_model_is_only_done_when_asked_for_by_name() -> None:
    drifting = finding("VQ202", "raise-vq-weight", "normalise-before-vq", severity=Severity.WARNING)
    assert "normalise-before-vq" not in names(prescribed(drifting))
    assert prescribed(drifting, only=("normalise-before-vq",)).plan == replace(
        PLAIN, geometry="unit-variance"
    )


def test_a_weight_that_is_too_light_is_balanced_unless_another_is_wished_for() -> None:
    light = finding("VQ202", "raise-vq-weight", severity=Severity.WARNING)
    assert prescribed(light).plan.balanced
    assert not prescribed(light, weight_is_wished=True).plan.balanced


def test_more_updates_are_more_epochs_unless_the_user_says_how_many() -> None:
    stalled = report(finding("VQ302", "more-updates"))
    assert prescribe(stalled, REMEDIES, PLAIN, OPTIONS).plan.epochs == 200
    few = replace(OPTIONS, epochs=PLAIN.epochs)
    assert prescribe(stalled, REMEDIES, PLAIN, few).plan.epochs == PLAIN.epochs < 200


def test_of_a_symptom_only_the_recipe_is_meant() -> None:
    stalled = finding("VQ302", "faster-ema")
    few = finding("VQ401", "more-updates", "data-init", explained_by="VQ302:one")
    found = prescribed(stalled, few)
    assert "more-updates" not in names(found) and "faster-ema" in names(found)
    assert {p.remedy.name: p.because for p in found.remedies}["data-init"] == ("VQ401",)


def test_notes_ask_for_nothing() -> None:
    assert names(prescribed(finding("VQ401", "more-updates", severity=Severity.NOTE))) == list(RECIPE)


def test_only_and_skip() -> None:
    sick = finding("VQ101", "straight-through")
    assert names(prescribed(sick, only=("data-init",))) == ["data-init"]
    assert "warm-up" not in names(prescribed(sick, skip=("warm-up",)))


@pytest.mark.parametrize("name", ["no-such-thing", "reattach-encoder"])
def test_only_takes_remedies_that_retraining_can_apply(name: str) -> None:
    with pytest.raises(UserError, match=name):
        prescribed(only=(name,))
