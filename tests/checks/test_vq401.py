"""VQ401 too-few-updates just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says, usage

from vqdoctor.core.evidence import EmaState, Evidence, TrainingRecord

RECORD = TrainingRecord.healthy()
EMA = EmaState.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # advice only where the usage is poor
        ([RECORD.replace(updates=99)], "warning"),
        ([RECORD.replace(updates=100)], "passes"),
        ([RECORD.replace(decay=1.0)], "warning"),
        ([RECORD.replace(decay=None), EMA.replace(decay=0.9999)], "warning"),
        ([RECORD.replace(epochs=None, updates=None)], "cannot judge"),
        ([RECORD, usage(256, 28_752, 80, 90)], "note"),
        ([RECORD, usage(256, 200, 1, 1)], "passes"),
        ([RECORD.replace(epochs=200), usage(256, 28_752, 1, 1)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ401", *evidence) == expected
