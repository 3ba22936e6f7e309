"""Harm by the vectors that the codes replace: by accuracy where there is any, else by the loss."""

from __future__ import annotations

import pytest

from vqdoctor.checks import _harm
from vqdoctor.core.evidence import TaskMetrics

METRICS = TaskMetrics.healthy()
LOSSES = METRICS.replace(accuracy=None, bypass_accuracy=None, chance_accuracy=None, mean_code_loss=1.0)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (None, "warning"),
        (METRICS, "warning"),
        # a fifth of 0.96 - 0.11
        (METRICS.replace(accuracy=0.78), "error"),
        (METRICS.replace(accuracy=0.8), "warning"),
        (METRICS.replace(accuracy=0.78, sample_size=40), "warning"),
        (METRICS.replace(accuracy=0.05, bypass_accuracy=0.1), "warning"),
        # an accuracy that holds outweighs a loss that does not
        (METRICS.replace(loss=2.0, bypass_loss=0.1, mean_code_loss=2.6), "warning"),
        (LOSSES.replace(loss=0.29, bypass_loss=0.1), "error"),
        (LOSSES.replace(loss=0.27, bypass_loss=0.1), "warning"),
        # z_e was never decoded, or the loss without the layer is no loss at all
        (LOSSES.replace(loss=0.29, bypass_loss=361_437.0), "warning"),
        (LOSSES.replace(loss=0.29, bypass_loss=0.0), "warning"),
        (LOSSES.replace(loss=0.29, bypass_loss=None), "warning"),
    ],
)
def test_severity(metrics: TaskMetrics | None, expected: str) -> None:
    assert _harm.severity(metrics).label == expected
