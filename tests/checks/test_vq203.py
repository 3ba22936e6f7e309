"""VQ203 beta-on-wrong-term just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import problems, says

from vqdoctor.checks import all_checks
from vqdoctor.checks._usage import COLLAPSED_USAGE, PADDED_USAGE
from vqdoctor.core.evidence import Evidence, LossBalance, LossTerms, TaskMetrics
from vqdoctor.core.levels import Confidence
from vqdoctor.engine.evaluate import evaluate
from vqdoctor.engine.rank import rank

TERMS = LossTerms.healthy()
SWAPPED = TERMS.replace(commitment=1.0, codebook=0.25)
NO_BETA = {"beta": None, "beta_from": ""}
HARMLESS = LossBalance.healthy(ratio=0.83)
LOST = TaskMetrics.healthy(accuracy=0.6, bypass_accuracy=0.9)
"""A task of which the codes lose a third."""


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # the terms are told from their ratio, whatever their common factor
        ([SWAPPED], "warning"),
        ([SWAPPED.replace(commitment=64.0, codebook=16.0)], "warning"),
        ([TERMS.replace(commitment=1.0, codebook=1.0)], "passes"),
        ([SWAPPED.replace(beta=1.0)], "passes"),
        ([SWAPPED.replace(beta=0.0)], "passes"),
        ([SWAPPED.replace(legacy=True)], "note"),
        ([SWAPPED.replace(legacy=True), COLLAPSED_USAGE], "warning"),
        ([SWAPPED.replace(**NO_BETA)], "cannot judge"),
        ([SWAPPED.replace(**NO_BETA), COLLAPSED_USAGE], "warning"),
        ([TERMS.replace(**NO_BETA), COLLAPSED_USAGE], "passes"),
        ([TERMS.replace(codebook=None)], "cannot judge"),
        # the encoder does its task first, or it is tied to its codes
        ([SWAPPED, LossBalance.healthy(ratio=1.0)], "note"),
        ([SWAPPED, LossBalance.healthy(ratio=1.1)], "warning"),
        ([SWAPPED, LossBalance.healthy(ratio=None, vq_weight=None)], "warning"),
        ([SWAPPED.replace(legacy=True), COLLAPSED_USAGE, HARMLESS], "note"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ203", *evidence) == expected


def test_only_a_recorded_beta_is_known_for_sure() -> None:
    assert problems("VQ203", SWAPPED)[0].confidence is Confidence.HIGH
    assert problems("VQ203", SWAPPED.replace(beta_from="layer"))[0].confidence is Confidence.MEDIUM
    assert problems("VQ203", SWAPPED.replace(**NO_BETA), COLLAPSED_USAGE)[0].confidence is Confidence.LOW


def test_swapped_terms_that_leave_the_encoder_alone_take_no_blame() -> None:
    found = evaluate(all_checks(), ["vq"], [SWAPPED, HARMLESS, PADDED_USAGE, LOST], []).findings
    roots = [f for f in rank(found, all_checks(), [LOST]) if f.explained_by is None]
    assert [(f.code, f.severity.label) for f in roots] == [("VQ511", "error"), ("VQ203", "note")]
