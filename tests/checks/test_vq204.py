"""VQ204 loss-reduction-mismatch just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.checks import all_checks
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import Directions, Evidence, LossBalance, LossTerms, TaskMetrics, Usage
from vqdoctor.engine.evaluate import evaluate
from vqdoctor.engine.rank import rank

TERMS = LossTerms.healthy()
BALANCE = LossBalance.healthy()
LOSES = TaskMetrics.healthy(accuracy=0.6, bypass_accuracy=0.93)
ONE_WAY = Directions.healthy(dim=64, vector_directions=1, input_directions=18)
NO_BETA = {"beta": None, "beta_from": ""}


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # a sum, and it outweighs the task
        ([TERMS.replace(commitment=16.0), BALANCE.replace(ratio=0.81)], "warning"),
        ([TERMS.replace(commitment=16.0), BALANCE.replace(ratio=0.81), LOSES], "error"),
        ([TERMS.replace(commitment=16.0), BALANCE.replace(ratio=0.79)], "note"),
        # beta on the codebook's term leaves weight 1 at z_e, a sum or not
        ([TERMS.replace(commitment=64.0, codebook=16.0), BALANCE.replace(ratio=8.6)], "warning"),
        ([TERMS.replace(commitment=1.0, codebook=0.25), BALANCE.replace(ratio=8.6)], "passes"),
        # a sum that is measured exactly is told, and one that is guessed where the usage is poor
        ([TERMS.replace(commitment=16.0), BALANCE.replace(ratio=0.38), COLLAPSED_USAGE], "note"),
        ([TERMS.replace(commitment=16.0), BALANCE.replace(ratio=0.38), Usage.healthy()], "note"),
        ([TERMS.replace(commitment=16.0, **NO_BETA), BALANCE.replace(ratio=0.38), COLLAPSED_USAGE], "note"),
        ([TERMS.replace(commitment=16.0, **NO_BETA), BALANCE.replace(ratio=0.38), Usage.healthy()], "passes"),
        # at rest, of z_e's directions one is left, and few codes are in use
        ([TERMS.replace(commitment=16.0), BALANCE.replace(ratio=0.41), ONE_WAY, COLLAPSED_USAGE], "warning"),
        ([TERMS.replace(commitment=16.0), BALANCE.replace(ratio=0.41), ONE_WAY, Usage.healthy()], "note"),
        ([TERMS, BALANCE.replace(ratio=0.41), ONE_WAY, COLLAPSED_USAGE], "passes"),
        ([TERMS.replace(commitment=16.0), BALANCE.replace(ratio=None)], "cannot judge"),
        ([TERMS.replace(commitment=7.9), BALANCE.replace(ratio=9.0)], "passes"),
        ([TERMS.replace(commitment=16.0 * 400), BALANCE.replace(ratio=9.0)], "warning"),
        ([TERMS.replace(commitment=1.0, dim=4), BALANCE.replace(ratio=9.0)], "passes"),
        ([TERMS.replace(commitment=None), BALANCE.replace(ratio=9.0)], "cannot judge"),
        # the gradient at the first of several levels has another form, and the codebook's tells the sum
        ([TERMS.replace(commitment=None, codebook=64.0), BALANCE.replace(ratio=0.81)], "warning"),
        ([TERMS.replace(commitment=None, codebook=16.0), BALANCE.replace(ratio=0.81)], "warning"),
        ([TERMS.replace(commitment=None, codebook=7.9), BALANCE.replace(ratio=0.81)], "cannot judge"),
        ([TERMS.replace(commitment=None, codebook=None), BALANCE.replace(ratio=9.0)], "cannot judge"),
        ([TERMS.replace(commitment=16.0, **NO_BETA), BALANCE.replace(ratio=9.0)], "warning"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ204", *evidence) == expected


def test_a_weight_too_heavy_is_a_symptom_of_the_sum() -> None:
    heavy = [TERMS.replace(commitment=16.0), BALANCE.replace(vq_weight=1.0, ratio=35.0)]
    findings = rank(evaluate(all_checks(), ["vq"], heavy, []).findings, all_checks())
    assert [(f.code, f.explained_by) for f in findings] == [("VQ204", None), ("VQ201", "VQ204:vq")]
