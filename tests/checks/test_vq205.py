"""VQ205 vq-loss-not-in-the-loss just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import Evidence, LossUse, TaskMetrics

USE = LossUse.healthy()
LOSES = TaskMetrics.healthy(accuracy=0.6, bypass_accuracy=0.93)
NO_LOSS = {"offered": 0.0, "used": None}


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([USE.replace(vq_weight=None)], "passes"),
        ([USE.replace(vq_weight=0.0)], "warning"),
        ([USE.replace(vq_weight=0.0), LOSES], "error"),
        ([USE.replace(vq_weight=1e-6)], "passes"),
        ([USE.replace(used=False)], "passes"),
        ([USE.replace(used=False, gradient=0.0)], "warning"),
        ([USE.replace(used=True, reported=None, gradient=None)], "passes"),
        ([USE.replace(**NO_LOSS, reported=0.0, gradient=0.0)], "passes"),
        ([USE.replace(**NO_LOSS, vq_weight=0.0, gradient=None, reported=None)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ205", *evidence) == expected
