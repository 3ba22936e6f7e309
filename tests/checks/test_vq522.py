"""VQ522 collapse-after-revival just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import Course


def course(end: float, revived: tuple[int, ...]) -> Course:
    return Course.healthy(perplexity=(*(100.0,) * 8, *(end,) * 4), revived=revived)


OFTEN = (0, 0, 0, 0, 0, 9, 9, 9, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("end", "revived", "expected"),
    [
        (59.0, OFTEN, "warning"),
        (61.0, OFTEN, "passes"),
        (20.0, (0,) * 12, "passes"),
        (20.0, (0, 0, 0, 0, 0, 0, 9, 9, 0, 0, 0, 0), "passes"),
        # two of 256 codes jump by chance
        (20.0, (0, 0, 0, 0, 0, 2, 2, 2, 0, 0, 0, 0), "passes"),
        # revived to the end: the usage is that of the revival
        (20.0, (0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9), "cannot judge"),
    ],
)
def test_limits(end: float, revived: tuple[int, ...], expected: str) -> None:
    assert says("VQ522", course(end, revived)) == expected
