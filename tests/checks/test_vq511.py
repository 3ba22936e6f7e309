"""VQ511 one-code-stands-out just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.checks._usage import COLLAPSED_USAGE, PADDED_USAGE
from vqdoctor.core.evidence import Usage


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage.healthy(), ("passes", "passes", "passes")),
        (PADDED_USAGE, ("warning", "passes", "passes")),
        # the others have to be those of a working codebook: 0.2 K
        (PADDED_USAGE.replace(rest_perplexity=25.5), ("passes", "error", "passes")),
        (PADDED_USAGE.replace(rest_perplexity=25.7), ("warning", "passes", "passes")),
        # the dead among the others are told as ever
        (PADDED_USAGE.replace(active=38), ("warning", "passes", "error")),
        (COLLAPSED_USAGE, ("passes", "error", "error")),
    ],
)
def test_limits(usage: Usage, expected: tuple[str, str, str]) -> None:
    assert (says("VQ511", usage), says("VQ501", usage), says("VQ502", usage)) == expected
