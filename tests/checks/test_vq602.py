"""VQ602 decoder-ignores-codes just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import Evidence, TaskMetrics

METRICS = TaskMetrics.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([METRICS.replace(mean_code_accuracy=0.91)], "error"),
        ([METRICS.replace(mean_code_accuracy=0.90)], "passes"),
        ([METRICS.replace(accuracy=0.08, mean_code_accuracy=0.08)], "cannot judge"),
        ([METRICS.replace(accuracy=None, loss=0.1, mean_code_loss=0.102)], "passes"),
        ([METRICS.replace(accuracy=None, loss=-4.0, mean_code_loss=-4.0)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ602", *evidence) == expected
