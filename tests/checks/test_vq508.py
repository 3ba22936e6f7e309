"""VQ508 counts-hide-collapse just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import run_advice, says, usage

from vqdoctor.core.evidence import CountsUsage, Evidence

COUNTS = CountsUsage.healthy(perplexity=60.0, low=50.0, high=70.0)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([usage(256, 4_096, 24.9, 60), COUNTS], "warning"),
        ([usage(256, 4_096, 25.1, 60), COUNTS], "passes"),
        ([usage(256, 4_095, 24.9, 60), COUNTS], "cannot judge"),
        ([usage(256, 4_096, 24.9, 60, source="checkpoint"), COUNTS], "cannot judge"),
        ([usage(256, 4_096, 24.9, 60)], "cannot judge"),
        # the upper end of the data's interval counts
        ([usage(256, 4_096, 20.0, 60, perplexity_high=26.0), COUNTS], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ508", *evidence) == expected


def test_the_advice_gives_the_perplexity_of_the_codes() -> None:
    import torch

    found = run_advice("VQ508", indices=torch.arange(64).reshape(4, 16), num_codes=256)["perplexity"]
    assert isinstance(found, torch.Tensor) and found.item() == pytest.approx(64.0)
