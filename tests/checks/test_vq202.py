"""VQ202 vq-loss-too-light just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import problems, says

from vqdoctor.core.evidence import DataMatch, Evidence, LookupScale, LossBalance, LossTerms

BALANCE = LossBalance.healthy()
MATCH = DataMatch.healthy()
AWAY = (MATCH.replace(scale_ratio=5.0), BALANCE.replace(ratio=0.0))


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # size alone proves nothing
        ([MATCH.replace(scale_ratio=5.0)], "cannot judge"),
        ([MATCH], "passes"),
        ([MATCH.replace(scale_ratio=5.0), BALANCE.replace(ratio=0.0)], "warning"),
        ([*AWAY, LookupScale.healthy(vector_spread=0.002)], "warning"),
        # a layer that normalises vectors: their length before it means nothing
        ([*AWAY, LookupScale.healthy(vector_spread=7e-9)], "cannot judge"),
        ([MATCH.replace(scale_ratio=2.9), BALANCE.replace(ratio=0.0)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ202", *evidence) == expected


@pytest.mark.parametrize(
    ("weight", "commitment", "first"),
    [
        (1.0, 0.009, "commitment-term"),
        (1.0, 0.011, "raise-vq-weight"),
        # the whole is light too, and a term of it would be as well
        (0.09, 0.009, "raise-vq-weight"),
    ],
)
def test_a_light_commitment_term_is_added_and_not_the_whole_made_heavier(
    weight: float, commitment: float, first: str
) -> None:
    evidence = [
        MATCH.replace(scale_ratio=5.0),
        BALANCE.replace(ratio=1e-5, vq_weight=weight),
        LossTerms.healthy(commitment=commitment, codebook=1.0),
    ]
    (problem,) = problems("VQ202", *evidence)
    assert problem.remedies[0] == first
