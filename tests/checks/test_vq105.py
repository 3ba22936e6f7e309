"""VQ105 wrong-flatten just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import Evidence, Flattening

CUT = Flattening.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # a layer that mixes positions on purpose follows neither positions nor strips
        ([CUT.replace(equal=0.91, equal_as_stored=1.0)], "passes"),
        ([CUT.replace(equal=0.89, equal_as_stored=1.0)], "error"),
        ([CUT.replace(equal=0.1, equal_as_stored=0.2)], "cannot judge"),
        ([CUT.replace(equal=0.1, equal_as_stored=None)], "cannot judge"),
        ([CUT.replace(equal=0.1, equal_as_stored=1.0, by_chance=0.81)], "cannot judge"),
        ([CUT.replace(positions=1, equal=None, by_chance=None, input_runs=None)], "cannot judge"),
        ([CUT.replace(positions=1, equal=None, by_chance=None, input_runs=True)], "error"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ105", *evidence) == expected
