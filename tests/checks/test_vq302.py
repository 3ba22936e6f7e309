"""VQ302 ema-not-converged just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import EmaState, Evidence

EMA = EmaState.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([EMA.replace(start_weight=0.04)], "passes"),
        ([EMA.replace(start_weight=0.06)], "warning"),
        ([EMA.replace(start_weight=0.51)], "error"),
        ([EMA.replace(start_weight=None)], "cannot judge"),
        ([EMA.replace(never_written=True)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ302", *evidence) == expected
