"""VQ108 low-precision-lookup just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import Evidence, LookupPrecision

PRECISION = LookupPrecision.healthy()
STORED = PRECISION.replace(
    source="checkpoint", dtype="bfloat16", agreement=None, used=None, used_in_full=None, sample_size=256
)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([PRECISION.replace(agreement=0.51)], "passes"),
        ([PRECISION.replace(agreement=0.49)], "warning"),
        ([PRECISION.replace(agreement=0.6, error_growth=0.26, added_error=0.011)], "warning"),
        ([PRECISION.replace(agreement=0.6, error_growth=0.24, added_error=0.2)], "passes"),
        ([PRECISION.replace(agreement=0.6, error_growth=2.0, added_error=0.009)], "passes"),
        ([PRECISION.replace(agreement=0.6, error_growth=None, added_error=None)], "passes"),
        ([STORED.replace(blurred_rows=128)], "passes"),
        ([STORED.replace(blurred_rows=129)], "warning"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ108", *evidence) == expected
