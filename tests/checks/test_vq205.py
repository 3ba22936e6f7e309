"""VQ205 vq-loss-not-in-the-loss just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import DataMatch, Evidence, FirstInput, LossUse, TaskMetrics

USE = LossUse.healthy()
LOSES = TaskMetrics.healthy(accuracy=0.6, bypass_accuracy=0.93)
ROOM = TaskMetrics.healthy(accuracy=0.77, bypass_accuracy=0.8)
DONE = TaskMetrics.healthy(accuracy=0.96, bypass_accuracy=0.97)
ORDINARY, RAW = FirstInput.healthy(rms=0.78), FirstInput.healthy(rms=147.0)
NO_LOSS = {"offered": 0.0, "used": None}


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([USE.replace(vq_weight=None)], "passes"),
        ([USE.replace(vq_weight=0.0)], "warning"),
        ([USE.replace(vq_weight=0.0), LOSES], "error"),
        # z_e has grown to the size of a raw input, and the accuracy has room
        ([USE.replace(vq_weight=0.0), ROOM, DataMatch.healthy(data_rms=53.0), ORDINARY], "error"),
        ([USE.replace(vq_weight=0.0), ROOM, DataMatch.healthy(data_rms=29.0), ORDINARY], "warning"),
        ([USE.replace(vq_weight=0.0), ROOM, DataMatch.healthy(data_rms=53.0), RAW], "warning"),
        ([USE.replace(vq_weight=0.0), DONE, DataMatch.healthy(data_rms=53.0), ORDINARY], "warning"),
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
