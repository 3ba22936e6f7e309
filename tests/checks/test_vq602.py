"""VQ602 decoder-ignores-codes just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import problems, says

from vqdoctor.core.evidence import Evidence, TaskGradient, TaskMetrics

METRICS = TaskMetrics.healthy()
UNREAD = METRICS.replace(
    mean_code_accuracy=METRICS.accuracy, loss=0.2, bypass_loss=0.2, shuffled_loss=0.2, mean_code_loss=0.2
)
AROUND = TaskGradient.healthy(at_output=None, ratio=None)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([METRICS.replace(mean_code_accuracy=0.91)], "error"),
        ([METRICS.replace(mean_code_accuracy=0.90)], "passes"),
        ([METRICS.replace(accuracy=0.08, mean_code_accuracy=0.08)], "cannot judge"),
        ([METRICS.replace(accuracy=None, loss=0.1, mean_code_loss=0.102)], "passes"),
        ([METRICS.replace(accuracy=None, loss=-4.0, mean_code_loss=-4.0)], "cannot judge"),
        # z_e, shuffled codes and the mean code leave the loss exactly as it is, and the encoder learns
        ([UNREAD, AROUND], "error"),
        ([UNREAD], "error"),
        ([UNREAD.replace(accuracy=None, loss=0.19), AROUND], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ602", *evidence) == expected


def test_only_codes_that_nothing_reads_come_before_a_collapse() -> None:
    assert "VQ501" in problems("VQ602", UNREAD, AROUND)[0].explains
    assert not problems("VQ602", UNREAD)[0].explains
    assert not problems("VQ602", UNREAD, AROUND.replace(at_output=0.2, ratio=1.0))[0].explains
    assert not problems("VQ602", UNREAD, AROUND.replace(joined=False))[0].explains
    assert not problems("VQ602", UNREAD.replace(bypass_loss=0.201), AROUND)[0].explains
