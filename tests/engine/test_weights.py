"""A remedy for the weight of the VQ loss names the factor that is off: the task's, or the layer's own."""

from __future__ import annotations

import pytest

from vqdoctor.checks import all_checks
from vqdoctor.core.evidence import Evidence, LossBalance, LossTerms, TrainingRecord
from vqdoctor.core.report import LayerSummary, Report
from vqdoctor.engine.examine import concluded
from vqdoctor.engine.weights import weights_of
from vqdoctor.engine.wording import setting_of
from vqdoctor.remedies import with_advice

LAYER = LayerSummary(
    name="vq", layout="vector-quantize-pytorch", layout_confidence="high", num_codes=128, dim=8
)
LOWER = next(remedy for remedy in with_advice(all_checks()) if remedy.name == "lower-vq-weight")
ARGUMENT = "VectorQuantize(..., commitment_weight=0.1)"


def of(*evidence: Evidence) -> Report:
    return Report(
        version="",
        checkpoint=None,
        layers=(LAYER,),
        findings=(),
        plan=(),
        evidence=evidence,
        unavailable=(),
        outcomes=(),
        verdict="healthy",
    )


def report(task: float | None, own: float | None, ratio: float = 0.4) -> Report:
    commitment = None if task is None or own is None else own
    balance = LossBalance.healthy(vq_weight=task, ratio=ratio)
    terms = LossTerms.healthy(commitment=commitment, beta=own, beta_from="layer" if own else "")
    return of(balance, terms)


@pytest.mark.parametrize(
    ("task", "own", "ratio", "code"),
    [
        (100.0, 1.0, 0.4, "vq_weight = 0.1   # of the task, in place of 100"),
        (100.0, None, 0.4, "vq_weight = 0.1   # of the task, in place of 100"),
        (1.0, 300.0, 0.4, ARGUMENT),
        (1.0, 1.0, 40.0, ARGUMENT),
        (None, 1.0, 40.0, ARGUMENT),
    ],
    ids=["task", "layer is silent", "layer", "neither", "task is unknown"],
)
def test_the_code_changes_the_weight_that_is_off(
    task: float | None, own: float | None, ratio: float, code: str
) -> None:
    found = report(task, own, ratio)
    step = next(step for step in concluded(found, all_checks()).plan if step.remedy == LOWER.name)
    assert step.code == code
    assert (setting_of(LOWER, LAYER, weights_of(found)) is not None) == (code == ARGUMENT)


def test_a_factor_of_one_is_not_what_is_too_heavy() -> None:
    (heavy,) = (f for f in concluded(report(100.0, 1.0), all_checks()).findings if f.code == "VQ201")
    assert heavy.measurements[0].name == "vq_weight"
    (heavy,) = (f for f in concluded(report(1.0, 300.0), all_checks()).findings if f.code == "VQ201")
    assert heavy.measurements[0].name == "commitment_weight"


def test_a_file_tells_its_weights_where_no_model_runs() -> None:
    record = TrainingRecord.healthy(vq_weight=100.0, commitment_weight=0.25)
    found = weights_of(of(record))
    assert (found["vq"].task, found["vq"].own) == (100.0, 0.25)
    assert found["vq"].is_task_meant("lower-vq-weight") and not found["vq"].is_task_meant("raise-vq-weight")
    assert weights_of(of()) == {}
