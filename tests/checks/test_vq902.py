"""VQ902 foreign-objects-in-file just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import Evidence, ForeignObjects


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([ForeignObjects.healthy(harmless=("a.B",), dangerous=("os.system",))], "error"),
        ([ForeignObjects.healthy(harmless=("a.B",))], "note"),
        ([ForeignObjects.healthy(harmless=("a.B",), unknown=("c.D",))], "warning"),
        ([ForeignObjects.healthy(unknown=("c.D",), dangerous=("os.system",))], "error"),
        ([ForeignObjects.healthy()], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ902", *evidence) == expected
