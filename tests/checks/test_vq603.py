"""VQ603 miscalibrated just inside and just outside its limits."""

from __future__ import annotations

import pytest
import torch
from judged import run_advice, says

from vqdoctor.core.evidence import Evidence, TaskMetrics

METRICS = TaskMetrics.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # a note on a model that is as accurate as without the codes, and never more than a warning
        ([METRICS.replace(ece=0.9)], "note"),
        ([METRICS.replace(ece=0.9, accuracy=0.90, bypass_accuracy=0.94)], "note"),
        ([METRICS.replace(ece=0.9, accuracy=0.10, bypass_accuracy=0.94)], "warning"),
        ([METRICS.replace(ece=0.9, accuracy=0.10, bypass_accuracy=None)], "note"),
        ([METRICS.replace(ece=0.05)], "passes"),
        ([METRICS.replace(ece=0.2, sample_size=99)], "cannot judge"),
        ([METRICS.replace(ece=None)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ603", *evidence) == expected


def test_calibrate_recovers_a_known_temperature() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4_000, 5) * 2
    labels = torch.distributions.Categorical(logits=logits).sample()
    temperature = run_advice("VQ603", logits=logits * 3, labels=labels)["temperature"]
    assert float(temperature) == pytest.approx(3.0, rel=0.08)  # type: ignore[arg-type]
