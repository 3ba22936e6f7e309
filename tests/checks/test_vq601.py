"""VQ601 collapse-masked-by-averaging just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says, usage

from vqdoctor.core.evidence import Evidence, PositionInformation, Usage

INFORMATION, EVEN = PositionInformation.healthy(), Usage.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # a small codebook in full use is no collapse; nor is a model that fails visibly
        ([INFORMATION.replace(code_information=0.9, code_entropy=1.6), EVEN], "error"),
        ([INFORMATION.replace(code_information=1.1, code_entropy=1.6), EVEN], "passes"),
        ([INFORMATION.replace(code_information=0.39, code_entropy=1.12), usage(4, 28_752, 3.8, 4)], "passes"),
        ([INFORMATION.replace(code_information=0.6, code_entropy=1.6, pooled_accuracy=0.4), EVEN], "passes"),
        ([INFORMATION.replace(code_information=0.6, code_entropy=1.6, code_accuracy=0.85), EVEN], "passes"),
        ([INFORMATION.replace(positions=1), EVEN], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ601", *evidence) == expected
