"""VQ106 residual-not-detached just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import Evidence, LossTerms, ResidualLevel

LEVEL = ResidualLevel.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # published codecs are cut off from level 2 on, and work
        ([LEVEL.replace(reach=0.009)], "note"),
        ([LEVEL.replace(reach=0.009), COLLAPSED_USAGE], "warning"),
        ([LEVEL.replace(reach=0.009), COLLAPSED_USAGE, LossTerms.healthy()], "warning"),
        # a summed VQ loss is the likelier cause of the usage
        ([LEVEL.replace(reach=0.009), COLLAPSED_USAGE, LossTerms.healthy(commitment=16.0)], "note"),
        ([LEVEL.replace(reach=0.011), COLLAPSED_USAGE], "passes"),
        ([LEVEL.replace(level=1, gain=10.0)], "note"),
        ([LEVEL.replace(level=1, gain=9.9)], "passes"),
        ([LEVEL.replace(level=2, gain=32.0)], "passes"),
        ([LEVEL.replace(level=1, gain=None)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ106", *evidence) == expected
