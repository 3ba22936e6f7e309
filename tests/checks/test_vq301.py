"""VQ301 codebook-far-from-data just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import DataMatch, Evidence

MATCH = DataMatch.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([MATCH.replace(mean_offset=2.01)], "error"),
        ([MATCH.replace(mean_offset=1.99)], "passes"),
        ([MATCH.replace(quantization_error=1.01)], "error"),
        ([MATCH.replace(nearest_data=1.49)], "passes"),
        ([MATCH.replace(nearest_data=1.51)], "error"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ301", *evidence) == expected
