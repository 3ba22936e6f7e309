"""The ranking on hand-made findings: roots, symptoms and severities."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from vqdoctor.checks._usage import EMA_USAGE
from vqdoctor.core.evidence import (
    Experiments,
    GradientPath,
    LossBalance,
    TaskMetrics,
    Trace,
    TrainingRecord,
    UnsavedTable,
    Usage,
)
from vqdoctor.core.finding import Finding
from vqdoctor.core.levels import Confidence, Severity, Stage
from vqdoctor.engine.rank import rank

NOTE, WARNING, ERROR = Severity


def finding(code: str, severity: Severity = ERROR, layer: str | None = "vq", **more: Any) -> Finding:
    return Finding(
        code=code,
        name=code.lower(),
        stage=Stage(int(code[2])),
        severity=severity,
        confidence=more.pop("confidence", Confidence.HIGH),
        layer=layer,
        message="…",
        **more,
    )


def checks(**explained_by: tuple[str, ...]) -> Any:
    return [SimpleNamespace(code=code, explained_by=causes) for code, causes in explained_by.items()]


CHECKS = checks(
    VQ101=("VQ901",),
    VQ201=("VQ101", "VQ901"),
    VQ501=("VQ101", "VQ201", "VQ901"),
    VQ502=("VQ101", "VQ201", "VQ501", "VQ901"),
    VQ603=(),
    VQ901=(),
)


def order(findings: list[Finding]) -> list[tuple[str, str | None]]:
    return [(f.code, f.explained_by) for f in rank(findings, CHECKS)]


def test_symptoms_hang_under_their_cause() -> None:
    found = [finding("VQ501"), finding("VQ502"), finding("VQ101")]
    assert order(found) == [("VQ101", None), ("VQ501", "VQ101:vq"), ("VQ502", "VQ101:vq")]
    assert [f.rank for f in rank(found, CHECKS)] == [1, 2, 3]


def test_a_symptom_without_cause_is_a_root_and_explains_its_own_symptoms() -> None:
    assert order([finding("VQ502"), finding("VQ501")]) == [("VQ501", None), ("VQ502", "VQ501:vq")]


def test_the_cause_must_be_on_the_same_layer_or_model_wide() -> None:
    assert order([finding("VQ501", layer="a"), finding("VQ101", layer="b")]) == [
        ("VQ101", None),
        ("VQ501", None),
    ]
    assert order([finding("VQ501", layer="a"), finding("VQ201", layer=None)]) == [
        ("VQ201", None),
        ("VQ501", "VQ201:"),
    ]


def test_a_root_takes_the_worst_severity_of_its_symptoms() -> None:
    first, second = rank([finding("VQ201", WARNING), finding("VQ501", ERROR)], CHECKS)
    assert (first.code, first.severity) == ("VQ201", ERROR)
    assert (second.code, second.severity) == ("VQ501", ERROR)
    (alone,) = rank([finding("VQ201", WARNING)], CHECKS)
    assert alone.severity is WARNING


def test_a_note_explains_nothing() -> None:
    assert order([finding("VQ201", NOTE), finding("VQ501")]) == [("VQ501", None), ("VQ201", None)]


def test_roots_sort_by_severity_stage_confidence_code() -> None:
    found = [
        finding("VQ603", WARNING, layer=None),
        finding("VQ502", ERROR, layer="b", confidence=Confidence.LOW),
        finding("VQ501", ERROR, layer="c"),
        finding("VQ101", WARNING, layer="d"),
    ]
    assert [f.code for f in rank(found, CHECKS)] == ["VQ501", "VQ502", "VQ101", "VQ603"]


LIVE = (Usage.healthy(), GradientPath.healthy())
RIVALS = [finding("VQ101"), finding("VQ201", WARNING), finding("VQ501")]


@pytest.mark.parametrize(
    ("evidence", "experiment"),
    [
        ((EMA_USAGE,), "--task FILE.py:NAME --decide"),
        ((EMA_USAGE, Usage.healthy()), "--task FILE.py:NAME --decide"),  # data was given, and no model
        ((EMA_USAGE, TrainingRecord.healthy(task=None)), "--task FILE.py:NAME --decide"),
        ((EMA_USAGE, TrainingRecord.healthy(task="conv2d-vq/digits")), "--data batch.npz --decide"),
        (LIVE, "--decide"),
        ((*LIVE, LossBalance.healthy(vq_weight=None)), "--trained-vq-weight W --decide"),
        ((*LIVE, Trace.healthy()), ""),
        ((*LIVE, Experiments.healthy()), ""),
        ((*LIVE, Experiments.healthy(), LossBalance.healthy(vq_weight=None)), "--trained-vq-weight W"),
        (None, ""),
    ],
)
def test_two_causes_of_one_symptom_name_the_experiment_that_tells(evidence: Any, experiment: str) -> None:
    causes = checks(VQ101=(), VQ201=(), VQ501=("VQ101", "VQ201"))
    found = rank(RIVALS, causes, evidence)
    assert [(f.code, f.decide_with) for f in found][:2] == [("VQ101", experiment), ("VQ501", "")]


@pytest.mark.parametrize("usual", ["VQ101", "VQ201"])
def test_with_the_other_cause_absent_nothing_is_left_to_tell(usual: str) -> None:
    causes = checks(VQ101=(), VQ201=(), VQ501=("VQ101", "VQ201"))
    found = rank([finding(usual), finding("VQ501")], causes, LIVE)
    assert [(f.code, f.decide_with, f.explained_by) for f in found] == [
        (usual, "", None),
        ("VQ501", "", f"{usual}:vq"),
    ]


def test_a_cause_that_is_itself_a_symptom_is_no_rival() -> None:
    causes = checks(VQ101=(), VQ201=("VQ101",), VQ501=("VQ101", "VQ201"))
    assert rank(RIVALS, causes, LIVE)[0].decide_with == ""


def test_poor_usage_without_a_cause_names_the_experiment() -> None:
    assert rank([finding("VQ501")], CHECKS, LIVE)[0].decide_with == "--decide"
    assert rank([finding("VQ501", NOTE)], CHECKS, LIVE)[0].decide_with == ""


def test_a_run_that_shows_no_layer_at_work_is_not_told_to_bring_a_task() -> None:
    assert "--task" in rank([finding("VQ501")], CHECKS, (EMA_USAGE,))[0].decide_with
    seen = (EMA_USAGE, UnsavedTable.HEALTHY)
    assert rank([finding("VQ501")], CHECKS, seen)[0].decide_with == ""


def test_what_a_check_itself_would_do_to_be_certain_comes_first() -> None:
    found = rank([finding("VQ501", decide_with="--trained-vq-weight W")], CHECKS, LIVE)
    assert found[0].decide_with == "--trained-vq-weight W"


def test_a_run_of_a_model_is_not_told_to_bring_data() -> None:
    told = [
        rank([finding(code, decide_with=f"--data batch.npz{more}")], CHECKS, seen)[0].decide_with
        for code, more, seen in (
            ("VQ201", "", (EMA_USAGE,)),
            ("VQ201", "", LIVE),
            ("VQ201", " --probe-steps 20", LIVE),
            ("VQ501", "", LIVE),
            ("VQ501", "", (EMA_USAGE,)),  # data alone does not name the cause
        )
    ]
    assert told == ["--data batch.npz", "", "--probe-steps 20", "--decide", "--task FILE.py:NAME --decide"]


def test_a_non_finite_vq_tensor_comes_before_everything() -> None:
    found = [finding("VQ101", layer="a"), finding("VQ901", layer="b"), finding("VQ901", layer=None)]
    ranked = [(f.code, f.layer) for f in rank(found, CHECKS)]
    assert ranked == [("VQ901", "b"), ("VQ901", None), ("VQ101", "a")]


def test_the_input_order_does_not_matter() -> None:
    found = [finding("VQ502"), finding("VQ501"), finding("VQ201", WARNING), finding("VQ603", WARNING, None)]
    orders = {tuple(f.code for f in rank(list(p), CHECKS)) for p in itertools.permutations(found)}
    assert orders == {("VQ201", "VQ501", "VQ502", "VQ603")}


COSTLY = TaskMetrics.healthy(accuracy=0.86)


@pytest.mark.parametrize(
    ("found", "metrics", "expected"),
    [
        ([("VQ201", WARNING)], COSTLY, [ERROR]),
        ([("VQ201", WARNING)], TaskMetrics.healthy(accuracy=0.94), [WARNING]),
        ([("VQ201", NOTE)], COSTLY, [NOTE]),
        ([("VQ603", WARNING)], COSTLY, [WARNING]),
        # the first alone, and none where something is an error already
        ([("VQ201", WARNING), ("VQ301", WARNING)], COSTLY, [ERROR, WARNING]),
        ([("VQ301", ERROR), ("VQ201", WARNING)], COSTLY, [ERROR, WARNING]),
    ],
)
def test_the_first_cause_is_an_error_where_the_codes_cost_the_task(
    found: list[tuple[str, Severity]], metrics: TaskMetrics, expected: list[Severity]
) -> None:
    ranked = rank([finding(code, severity) for code, severity in found], CHECKS, [metrics])
    assert [f.severity for f in ranked] == expected


def test_a_guess_is_not_blamed_for_what_the_codes_cost() -> None:
    (guess,) = rank([finding("VQ201", WARNING, confidence=Confidence.LOW)], CHECKS, [COSTLY])
    assert guess.severity is WARNING


def test_a_finding_that_tells_what_it_causes_is_a_root() -> None:
    unread = finding("VQ602", explains=("VQ501",))
    known = checks(VQ501=("VQ301",), VQ602=("VQ501", "VQ301"), VQ301=(), VQ502=("VQ501", "VQ301"))
    found = [finding("VQ501"), unread, finding("VQ502")]
    order = [(f.code, f.explained_by) for f in rank(found, known)]
    assert order == [("VQ602", None), ("VQ501", "VQ602:vq"), ("VQ502", "VQ602:vq")]
    # another cause beside it stays a cause of its own
    order = [(f.code, f.explained_by) for f in rank([*found, finding("VQ301")], known)]
    assert [code for code, cause in order if cause is None] == ["VQ301", "VQ602"]
    assert ("VQ501", "VQ602:vq") in order
