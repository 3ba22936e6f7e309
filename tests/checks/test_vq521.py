"""VQ521 perplexity-falling just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import Course


def course(*perplexity: float) -> Course:
    n = len(perplexity)
    return Course.healthy(
        perplexity=perplexity, steps=tuple(range(n)), active=(250,) * n, revived=(0,) * n,
        z_e_norm=(20.0,) * n, code_norm=(20.0,) * n,
    )  # fmt: skip


def line(end: float, n: int = 12) -> list[float]:
    return [200 + (end - 200) * i / (n - 1) for i in range(n)]


@pytest.mark.parametrize(
    ("perplexity", "expected"),
    [
        # the medians of three begin at 200 and end at the last but one
        (line(110), "warning"),
        (line(125), "passes"),
        (line(60, n=7), "cannot judge"),
        (line(60)[::-1], "passes"),
        ([200.0, *[90.0, 95.0, 92.0, 96.0, 91.0, 94.0, 97.0, 93.0, 95.0, 96.0, 92.0]], "passes"),
        ([200.0] * 8 + [150.0, 110.0, 90.0, 80.0, 70.0], "warning"),
        # one interval is noise
        ([*[200.0] * 10, 30.0, 200.0], "passes"),
    ],
)
def test_limits(perplexity: list[float], expected: str) -> None:
    assert says("VQ521", course(*perplexity)) == expected
