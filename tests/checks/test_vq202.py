"""VQ202 vq-loss-too-light just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import problems, says

from vqdoctor.core.evidence import (
    DataMatch,
    Evidence,
    FirstInput,
    LookupScale,
    LossBalance,
    LossTerms,
    TaskMetrics,
)

BALANCE = LossBalance.healthy()
MATCH = DataMatch.healthy()
FOLLOWED = [MATCH.replace(data_rms=80.0), BALANCE.replace(vq_weight=1e-5), FirstInput.healthy(rms=0.8)]
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
        # codes that followed a z_e that nothing held: an error where the task has room
        (FOLLOWED, "warning"),
        ([*FOLLOWED, TaskMetrics.healthy(accuracy=0.94)], "error"),
        ([*FOLLOWED, TaskMetrics.healthy(accuracy=0.96)], "warning"),
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
