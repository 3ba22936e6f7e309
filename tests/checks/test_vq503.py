"""VQ503 duplicate-codes just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import CodebookGeometry, Evidence

GEOMETRY = CodebookGeometry.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([GEOMETRY.replace(duplicate_rows=13)], "warning"),
        ([GEOMETRY.replace(duplicate_rows=12)], "passes"),
        ([GEOMETRY.replace(duplicate_rows=60, zero_rows=40)], "warning"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ503", *evidence) == expected
