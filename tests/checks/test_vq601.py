"""VQ601 collapse-masked-by-averaging just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import problems, says, usage

from vqdoctor.core.evidence import Evidence, PositionInformation, Usage

INFORMATION, EVEN = PositionInformation.healthy(), Usage.healthy()
PLACED = INFORMATION.replace(
    code_information=0.3, code_accuracy=0.16, pooled_accuracy=0.4, code_entropy=0.64, position_share=0.71
)


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
        # z_e tells the position, so that each has codes of its own: in a model that fails as well
        ([PLACED, EVEN], "error"),
        ([PLACED.replace(position_share=0.69), EVEN], "passes"),
        ([PLACED.replace(position_share=None), EVEN], "passes"),
        ([PLACED.replace(code_entropy=2.5), EVEN], "passes"),
        ([PLACED.replace(code_information=1.1), EVEN], "passes"),
        # 52 samples of 16 positions are too few for 256 codes, 53 enough
        ([PLACED.replace(sample_size=16 * 52), EVEN], "passes"),
        ([PLACED.replace(sample_size=16 * 53), EVEN], "error"),
        # a codebook that is poorly used over all positions hides nothing
        ([PLACED, usage(256, 28_752, 2.0, 4)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ601", *evidence) == expected


def test_the_advice_fits_what_hides_the_collapse() -> None:
    done_well = PLACED.replace(pooled_accuracy=0.95)
    (placed,) = problems("VQ601", done_well.replace(position_share=0.8), EVEN)
    (masked,) = problems("VQ601", done_well.replace(position_share=0.2), EVEN)
    assert placed.remedies == ("position-after-codes",)
    assert placed.message.startswith("80 % of the variance of z_e lies between the positions")
    assert masked.remedies == ("check-per-position",)
    assert "16 positions say together" in masked.message
