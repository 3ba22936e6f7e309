"""VQ202 vq-loss-too-light just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import DataMatch, Evidence, LookupScale, LossBalance

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
