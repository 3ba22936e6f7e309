"""VQ511 one-code-stands-out just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.checks._usage import COLLAPSED_USAGE, PADDED_USAGE
from vqdoctor.core.evidence import CodebookGeometry, Evidence, Usage

PADDED = Usage.healthy(
    used=60, active=50, perplexity=2.0, perplexity_low=1.9, perplexity_high=2.1, max_share=0.87
)
COPIED = CodebookGeometry.healthy(duplicate_rows=188, most_copied=188)


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


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([PADDED, COPIED], "warning"),
        ([PADDED], "passes"),
        # copies of several vectors, as of a start that drew few of them
        ([PADDED, COPIED.replace(most_copied=128)], "warning"),
        ([PADDED, COPIED.replace(most_copied=127)], "passes"),
        ([PADDED, COPIED.replace(most_copied=None)], "passes"),
        # no code takes much: the copies are those of a start
        ([PADDED.replace(max_share=0.25), COPIED], "warning"),
        ([PADDED.replace(max_share=0.24), COPIED], "passes"),
        # a collapse uses few of the 68 codes that are no copies
        ([PADDED.replace(used=34), COPIED], "warning"),
        ([PADDED.replace(used=33), COPIED], "passes"),
        ([COLLAPSED_USAGE, COPIED], "passes"),
        # or few codes at all, or next to no vectors for the others
        ([PADDED.replace(used=8), COPIED.replace(duplicate_rows=240)], "warning"),
        ([PADDED.replace(used=7), COPIED.replace(duplicate_rows=250)], "passes"),
        ([PADDED.replace(max_share=0.979), COPIED], "warning"),
        ([PADDED.replace(max_share=0.981), COPIED], "passes"),
    ],
)
def test_copies_of_padding(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ511", *evidence) == expected
