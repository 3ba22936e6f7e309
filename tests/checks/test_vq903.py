"""VQ903 no-optimizer-state just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import Evidence, OptimizerMemory

MEMORY = OptimizerMemory.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([MEMORY.replace(layer=None)], "passes"),
        ([MEMORY.replace(layer=None, sample_size=1)], "passes"),
        ([MEMORY.replace(layer=None, sample_size=0)], "note"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ903", *evidence) == expected
