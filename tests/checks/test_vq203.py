"""VQ203 beta-on-wrong-term just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import problems, says

from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import Evidence, LossTerms
from vqdoctor.core.levels import Confidence

TERMS = LossTerms.healthy()
SWAPPED = TERMS.replace(commitment=1.0, codebook=0.25)
NO_BETA = {"beta": None, "beta_from": ""}


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # the terms are told from their ratio, whatever their common factor
        ([SWAPPED], "warning"),
        ([SWAPPED.replace(commitment=64.0, codebook=16.0)], "warning"),
        ([TERMS.replace(commitment=1.0, codebook=1.0)], "passes"),
        ([SWAPPED.replace(beta=1.0)], "passes"),
        ([SWAPPED.replace(beta=0.0)], "passes"),
        ([SWAPPED.replace(legacy=True)], "passes"),
        ([SWAPPED.replace(legacy=True), COLLAPSED_USAGE], "warning"),
        ([SWAPPED.replace(**NO_BETA)], "cannot judge"),
        ([SWAPPED.replace(**NO_BETA), COLLAPSED_USAGE], "warning"),
        ([TERMS.replace(**NO_BETA), COLLAPSED_USAGE], "passes"),
        ([TERMS.replace(codebook=None)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ203", *evidence) == expected


def test_only_a_recorded_beta_is_known_for_sure() -> None:
    assert problems("VQ203", SWAPPED)[0].confidence is Confidence.HIGH
    assert problems("VQ203", SWAPPED.replace(beta_from="layer"))[0].confidence is Confidence.MEDIUM
    assert problems("VQ203", SWAPPED.replace(**NO_BETA), COLLAPSED_USAGE)[0].confidence is Confidence.LOW
