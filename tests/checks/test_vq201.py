"""VQ201 vq-loss-too-heavy just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import problems, says

from vqdoctor.checks._usage import IMPLICIT_USAGE
from vqdoctor.core.evidence import (
    CodebookGradient,
    Evidence,
    LossBalance,
    LossTerms,
    OptimizerMemory,
    TaskMetrics,
    TrainingRecord,
    Usage,
)

BALANCE = LossBalance.healthy()
RECORD = TrainingRecord.healthy()
TERMS = LossTerms.healthy(beta=300.0, beta_from="layer", commitment=300.0)
REACHED = CodebookGradient.healthy(trainable=True, ema_owned=False, gradient=0.3)
UNMOVED = OptimizerMemory.healthy(codebook_listed=True, codebook_has_state=False)
LOSES = TaskMetrics.healthy(accuracy=0.6, bypass_accuracy=0.93)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # the loss of a layer without a codebook asks for variety
        ([BALANCE.replace(ratio=38.0), Usage.healthy()], "warning"),
        ([BALANCE.replace(ratio=38.0), IMPLICIT_USAGE], "cannot judge"),
        # the weight that a file does not record is unknown, not one
        ([BALANCE.replace(ratio=10.1)], "warning"),
        ([BALANCE.replace(ratio=10.1), LOSES], "error"),
        ([BALANCE.replace(ratio=9.9)], "passes"),
        ([BALANCE.replace(vq_weight=10.0)], "passes"),
        ([BALANCE.replace(vq_weight=None, ratio=None)], "cannot judge"),
        ([BALANCE.replace(vq_weight=None, ratio=None), RECORD.replace(vq_weight=100.0)], "warning"),
        ([RECORD.replace(vq_weight=None)], "cannot judge"),
        ([RECORD.replace(commitment_weight=1000.0)], "warning"),
        ([BALANCE, RECORD.replace(vq_weight=100.0)], "passes"),
        # the layer's own commitment weight counts times the VQ loss's, where its gradient bears it out
        ([BALANCE.replace(vq_weight=1.0), TERMS], "warning"),
        ([BALANCE.replace(vq_weight=1.0), TERMS, LOSES], "error"),
        ([BALANCE.replace(vq_weight=0.03), TERMS], "passes"),
        ([BALANCE.replace(vq_weight=None, ratio=None), TERMS], "cannot judge"),
        ([BALANCE.replace(vq_weight=1.0), TERMS.replace(commitment=None)], "passes"),
        ([BALANCE.replace(vq_weight=1.0), TERMS.replace(commitment=0.25)], "passes"),
        ([BALANCE.replace(vq_weight=1.0), LossTerms.healthy(beta_from="layer")], "passes"),
        # a training that had no gradient of the VQ loss is not the one that is measured
        ([BALANCE.replace(ratio=38.0), REACHED, UNMOVED], "cannot judge"),
        ([BALANCE.replace(ratio=38.0), REACHED, UNMOVED.replace(codebook_has_state=True)], "warning"),
        ([BALANCE.replace(ratio=38.0), REACHED.replace(ema_owned=True), UNMOVED], "warning"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ201", *evidence) == expected


def test_a_small_gradient_under_a_heavy_weight_is_explained_and_no_evidence() -> None:
    def message(ratio: float) -> str:
        (problem,) = problems("VQ201", BALANCE.replace(vq_weight=100.0, ratio=ratio))
        return problem.message

    assert "even if the gradient that is left of it is 0.32 of the task's by now" in message(0.32)
    assert "by now" not in message(3.0)
