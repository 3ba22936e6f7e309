"""VQ301 codebook-far-from-data just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import problems, says

from vqdoctor.core.evidence import CodebookGeometry, DataMatch, Evidence, WeightDecay

MATCH = DataMatch.healthy()
COPIES = CodebookGeometry.healthy(duplicate_rows=200)
FAR = MATCH.replace(codebook_rms=0.1)
SHORT = WeightDecay.healthy(reach=0.1)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([MATCH.replace(mean_offset=2.01)], "error"),
        ([MATCH.replace(mean_offset=1.99)], "passes"),
        # the middle of a codebook whose half are copies is that of one vector, unless it has no data near it
        ([MATCH.replace(mean_offset=2.01), COPIES.replace(duplicate_rows=128)], "passes"),
        ([MATCH.replace(mean_offset=2.01), COPIES.replace(duplicate_rows=127)], "error"),
        ([MATCH.replace(mean_offset=2.01, nearest_data=1.51), COPIES], "error"),
        ([MATCH.replace(quantization_error=1.01), COPIES], "error"),
        ([MATCH.replace(scale_ratio=5.1, quantization_error=0.51)], "error"),
        ([MATCH.replace(scale_ratio=5.1, quantization_error=0.49)], "passes"),
        ([MATCH.replace(scale_ratio=4.9, quantization_error=0.51)], "passes"),
        ([MATCH.replace(quantization_error=1.01)], "error"),
        ([MATCH.replace(nearest_data=1.49)], "passes"),
        ([MATCH.replace(nearest_data=1.51)], "error"),
        # z_e over the size of the codes and the way that they can have gone: 2 / (0.1 + 0.1) = 10
        ([FAR.replace(data_rms=2.01), SHORT], "error"),
        ([FAR.replace(data_rms=1.99), SHORT], "passes"),
        ([FAR.replace(data_rms=2.01, codebook_rms=0.2), SHORT], "passes"),
        ([FAR.replace(data_rms=2.01), SHORT.replace(reach=None)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ301", *evidence) == expected


def test_a_scale_out_of_reach_asks_for_a_norm_first() -> None:
    assert problems("VQ301", FAR.replace(data_rms=5.0), SHORT)[0].remedies[0] == "normalise-before-vq"
