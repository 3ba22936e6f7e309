"""VQ304 zero-count-blow-up just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import CodebookGeometry, EmaState, Evidence

EMA = EmaState.healthy()
GEOMETRY = CodebookGeometry.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([GEOMETRY.replace(oversized_rows=1), EMA.replace(zero_counts=1)], "warning"),
        ([GEOMETRY.replace(oversized_rows=1), EMA], "passes"),
        ([GEOMETRY.replace(oversized_rows=1), EMA.replace(zero_counts=1, divided_by_zero=1)], "warning"),
        ([GEOMETRY.replace(oversized_rows=1), EMA.replace(zero_counts=1, divided_by_zero=0)], "passes"),
        # counts that started at zero: the cause of poor usage only where they have grown a tenth of the codes
        ([GEOMETRY, EMA.replace(from_zero=26, start_weight=0.04)], "warning"),
        ([GEOMETRY, EMA.replace(from_zero=25, start_weight=0.04)], "note"),
        ([GEOMETRY, EMA.replace(from_zero=0, start_weight=0.04)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ304", *evidence) == expected
