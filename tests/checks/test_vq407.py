"""VQ407 too-few-codes just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import run_advice, says

from vqdoctor.core.evidence import DataMatch, Evidence, ResidualLevel, TaskMetrics, Usage

FULL = Usage.healthy(
    num_codes=8, used=8, active=8, share=1.0, perplexity=7.0, perplexity_low=6.9, perplexity_high=7.1
)
COARSE = DataMatch.healthy(dim=6, data_effective_rank=3.0, quantization_error=0.3)
LOST = TaskMetrics.healthy(
    accuracy=None,
    bypass_accuracy=None,
    chance_accuracy=None,
    loss=0.48,
    bypass_loss=0.31,
    mean_code_loss=0.78,
)
RIGHT = TaskMetrics.healthy(accuracy=0.5, bypass_accuracy=0.9, chance_accuracy=0.1)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([FULL, COARSE, LOST], "warning"),
        ([FULL, COARSE, RIGHT], "warning"),
        ([FULL.replace(perplexity_low=6.5), COARSE, LOST], "warning"),
        ([FULL.replace(perplexity_low=6.3), COARSE, LOST], "passes"),
        ([FULL, COARSE.replace(quantization_error=0.26), LOST], "warning"),
        ([FULL, COARSE.replace(quantization_error=0.24), LOST], "passes"),
        # eight codes leave a quarter of three directions: half of the variance is of codes that lie badly
        ([FULL, COARSE.replace(quantization_error=0.49), LOST], "warning"),
        ([FULL, COARSE.replace(quantization_error=0.51), LOST], "passes"),
        ([FULL, COARSE.replace(data_effective_rank=7.9), LOST], "warning"),
        ([FULL, COARSE.replace(data_effective_rank=8.1), LOST], "passes"),
        # what it costs: nothing that z_e would do better, or little that is left to do
        ([FULL, COARSE, LOST.replace(bypass_loss=0.47)], "passes"),
        ([FULL, COARSE, LOST.replace(bypass_loss=None)], "passes"),
        ([FULL, COARSE, LOST.replace(loss=0.23, bypass_loss=0.01)], "passes"),
        ([FULL, COARSE, RIGHT.replace(accuracy=0.85)], "passes"),
        ([FULL, COARSE, LOST, ResidualLevel.healthy(level=1)], "cannot judge"),
        ([FULL.replace(layer="vq[head 0]"), COARSE.replace(layer="vq[head 0]"), LOST], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ407", *evidence) == expected


def test_the_advice_makes_it_larger() -> None:
    assert run_advice("VQ407", num_codes=4)["num_codes"] == 32
