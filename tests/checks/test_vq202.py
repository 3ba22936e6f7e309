"""VQ202 vq-loss-too-light just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import DataMatch, Evidence, LossBalance

BALANCE = LossBalance.healthy()
MATCH = DataMatch.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # size alone proves nothing
        ([MATCH.replace(scale_ratio=5.0)], "cannot judge"),
        ([MATCH], "passes"),
        ([MATCH.replace(scale_ratio=5.0), BALANCE.replace(ratio=0.0)], "warning"),
        ([MATCH.replace(scale_ratio=2.9), BALANCE.replace(ratio=0.0)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ202", *evidence) == expected
