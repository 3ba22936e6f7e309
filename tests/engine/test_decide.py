"""What the experiments make of the findings, on hand-made evidence: order, confidence, and a new cause."""

from __future__ import annotations

from typing import Any

import pytest

from vqdoctor.checks import all_checks
from vqdoctor.core.evidence import Evidence, Experiments
from vqdoctor.core.experiments import REMOVALS
from vqdoctor.core.finding import Finding, Outcome
from vqdoctor.core.levels import Confidence, Severity, Stage
from vqdoctor.engine.decide import separating, with_shown
from vqdoctor.engine.evaluate import Evaluated
from vqdoctor.engine.rank import rank

NOTE, WARNING, ERROR = Severity
LOW, MEDIUM, HIGH = Confidence
CHECKS = all_checks()


def finding(code: str, severity: Severity = ERROR, layer: str | None = "vq", **more: Any) -> Finding:
    check = next(check for check in CHECKS if check.code == code)
    made: dict[str, Any] = {"confidence": HIGH, "message": "It is so.", **more}
    return Finding(
        code=code, name=check.name, stage=Stage(int(code[2])), severity=severity, layer=layer, **made
    )


def experiments(layer: str = "vq", factors: dict[str, float] | None = None, **gains: float) -> Experiments:
    """Return experiments with these gains, named with underscores."""
    names = [name.replace("_", "-") for name in gains]
    assert set(names) <= REMOVALS.keys()
    one = (1.0,) * len(names)
    return Experiments.healthy(
        layer=layer, names=tuple(names), changes=tuple(names), runs=(2,) * len(names), loss_before=1.0,
        loss_unchanged=1.0, loss=tuple(1 - gain for gain in gains.values()), gain=tuple(gains.values()),
        spread=(0.01,) * len(names), perplexity=one, perplexity_before=1.0, perplexity_unchanged=1.0,
        perplexity_factor=tuple((factors or {}).get(name, 1.0) for name in names), error=one,
        loss_without=one, perplexity_without=one, placed=(False,) * len(names),
    )  # fmt: skip


def order(findings: list[Finding], *evidence: Evidence) -> list[tuple[str, str | None]]:
    return [(f.code, f.explained_by) for f in rank(findings, CHECKS, evidence)]


FAR, HEAVY, COLLAPSED = finding("VQ301"), finding("VQ201", WARNING), finding("VQ501")


def test_the_cause_whose_removal_helps_goes_before_a_worse_symptom_of_it() -> None:
    assert order([FAR, HEAVY]) == [("VQ201", None), ("VQ301", "VQ201:vq")]
    slow = finding("VQ302", WARNING)
    assert [code for code, _ in order([HEAVY, slow])] == ["VQ201", "VQ302"]
    decided = experiments(lighter_vq_loss=0.02, faster_ema=0.4)
    (first, second) = rank([HEAVY, slow], CHECKS, [decided])
    assert (first.code, first.confidence) == ("VQ302", HIGH)
    assert "An experiment agrees: after 32 training steps with faster-ema" in first.message
    assert (second.code, second.confidence) == ("VQ201", MEDIUM)
    assert "this one's removal does not help: after 32 training steps with lighter" in second.message


def test_the_removal_that_helps_most_goes_first() -> None:
    causes = [finding("VQ201", WARNING), finding("VQ403", WARNING, None)]
    for gains, first in (((0.2, 0.5), "VQ403"), ((0.5, 0.2), "VQ201")):
        decided = experiments(lighter_vq_loss=gains[0], shuffled_samples=gains[1])
        assert order(causes, decided)[0][0] == first


def test_a_symptom_hangs_under_the_cause_that_the_experiments_leave() -> None:
    found = [HEAVY, finding("VQ302", WARNING), COLLAPSED]
    assert dict(order(found))["VQ501"] == "VQ201:vq"
    assert dict(order(found, experiments(lighter_vq_loss=0.0, faster_ema=0.4)))["VQ501"] == "VQ302:vq"


def test_where_nothing_helps_nothing_is_lowered() -> None:
    found = [HEAVY, finding("VQ302", WARNING), COLLAPSED]
    silent = experiments(lighter_vq_loss=0.02, faster_ema=-0.2, without_vq=0.6)
    assert rank(found, CHECKS, [silent]) == rank(found, CHECKS, [Experiments.healthy(names=())])


@pytest.mark.parametrize("code", ["VQ101", "VQ102"])
def test_a_proven_cut_of_the_gradient_keeps_its_place(code: str) -> None:
    found = [finding(code), finding("VQ201", WARNING)]
    ranked = rank(found, CHECKS, [experiments(straight_through=0.0, lighter_vq_loss=0.6)])
    assert (ranked[0].code, ranked[0].confidence) == (code, HIGH)


def test_codes_in_use_again_prove_no_cause_beside_the_symptom() -> None:
    placed = experiments(codes_from_data=0.4, lighter_vq_loss=0.0)
    first, second = rank([HEAVY, COLLAPSED], CHECKS, [placed])
    assert (first.code, first.confidence, second.code) == ("VQ201", HIGH, "VQ501")
    assert second.message == COLLAPSED.message
    (alone,) = rank([COLLAPSED], CHECKS, [placed])
    assert alone.message.startswith(f"{COLLAPSED.message} An experiment agrees: ")


def test_a_cause_is_not_lowered_for_a_symptom_of_its_own_that_is_treated() -> None:
    ranked = rank([HEAVY, FAR, COLLAPSED], CHECKS, [experiments(codes_from_data=0.4, lighter_vq_loss=0.0)])
    assert [(f.code, f.confidence, f.explained_by) for f in ranked] == [
        ("VQ201", HIGH, None), ("VQ301", HIGH, "VQ201:vq"), ("VQ501", HIGH, "VQ201:vq"),
    ]  # fmt: skip


def test_advice_comes_last() -> None:
    found = [HEAVY, finding("VQ403", WARNING, None), finding("VQ401", NOTE)]
    decided = experiments(lighter_vq_loss=0.0, shuffled_samples=0.4)
    assert [code for code, _ in order(found, decided)] == ["VQ403", "VQ201", "VQ401"]


def test_a_broken_tensor_stays_first() -> None:
    broken = finding("VQ901")
    assert order([broken, HEAVY], experiments(lighter_vq_loss=0.5))[0][0] == "VQ901"


def test_an_experiment_on_another_layer_says_nothing_here() -> None:
    (alone,) = rank([HEAVY], CHECKS, [experiments(layer="other", lighter_vq_loss=0.5)])
    assert alone == HEAVY.replace(rank=1)


def shown(found: list[Finding], *evidence: Evidence, code: str = "VQ201") -> Evaluated:
    outcomes = (Outcome(code=code, layer="vq", status="skipped", reason="unknown"),)
    return with_shown(Evaluated(findings=tuple(found), outcomes=outcomes), CHECKS, evidence)


def test_a_cause_that_only_an_experiment_shows_is_found() -> None:
    decided = experiments(codes_from_data=0.7, lighter_vq_loss=0.65, heavier_vq_loss=-0.2)
    evaluated = shown([COLLAPSED], decided)
    _, cause = evaluated.findings
    assert (cause.code, cause.severity, cause.confidence) == ("VQ201", WARNING, MEDIUM)
    assert cause.message.startswith(
        "No measurement shows it, and an experiment does: after 32 training steps"
    )
    assert cause.remedies[0] == "lower-vq-weight"
    assert [(o.status, o.reason) for o in evaluated.outcomes] == [("found", None)]
    ranked = rank(evaluated.findings, CHECKS, [decided])
    assert ranked[0] == cause.replace(rank=1, severity=ERROR), "the symptom's severity, and nothing else"


@pytest.mark.parametrize(
    ("found", "gains"),
    [
        ([COLLAPSED], {"lighter_vq_loss": 0.15}),  # too little to name what was not measured
        ([COLLAPSED], {"lighter_vq_loss": 0.5, "frozen_codebook": 0.6}),  # another change helps more
        ([COLLAPSED], {"codes_from_data": 0.6}),  # which treats the symptom
        ([COLLAPSED], {"shuffled_samples": 0.5}),  # the order of the samples is measured
        ([finding("VQ501", NOTE)], {"lighter_vq_loss": 0.5}),  # nothing is wrong
        ([], {"lighter_vq_loss": 0.5}),
        ([COLLAPSED, finding("VQ204")], {"lighter_vq_loss": 0.5}),  # the cause is found
        ([COLLAPSED, finding("VQ102")], {"lighter_vq_loss": 0.5}),  # a cut encoder is proven
    ],
)
def test_an_experiment_makes_no_finding_otherwise(found: list[Finding], gains: dict[str, float]) -> None:
    assert shown(found, experiments(**gains)).findings == tuple(found)


def left(*found: Finding, passed: tuple[str, ...] = ()) -> set[str]:
    """Return the experiments that these findings leave to run, where these checks passed."""
    outcomes = tuple(Outcome(code=code, layer="vq", status="passed") for code in passed)
    return set(separating(Evaluated(findings=found, outcomes=outcomes), CHECKS))


def test_only_the_experiments_that_separate_the_suspects_are_run() -> None:
    assert left() == left(finding("VQ401", NOTE)) == set(), "a model without a finding is left alone"
    assert left(HEAVY, finding("VQ302", WARNING)) == {"codes-from-data", "lighter-vq-loss", "faster-ema"}
    assert left(COLLAPSED) == set(REMOVALS), "no check has judged a cause"
    every = tuple(code for removal in REMOVALS.values() for code in removal.codes)
    shown = {name for name, removal in REMOVALS.items() if removal.shows}
    assert left(COLLAPSED, passed=every) == {*shown, "codes-from-data", "without-vq"}


@pytest.mark.parametrize("code", ["VQ309", "VQ101"])
def test_beside_a_proven_cause_no_other_is_looked_for(code: str) -> None:
    cause = {name for name, removal in REMOVALS.items() if code in removal.codes}
    assert left(finding(code), COLLAPSED) == {*cause, "codes-from-data"}
