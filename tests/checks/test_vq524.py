"""VQ524 z-e-drifts just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import Course


def course(z_e: list[float], codes: list[float]) -> Course:
    n = len(z_e)
    return Course.healthy(
        perplexity=(100.0,) * n, steps=tuple(range(n)), active=(250,) * n, revived=(0,) * n,
        z_e_norm=tuple(z_e), code_norm=tuple(codes),
    )  # fmt: skip


LEVEL = [4.0] * 8


def grown(by: float) -> list[float]:
    """Sixteen intervals: level until halfway, then up to this factor in equal steps, and there at the end."""
    return [*LEVEL, *(4.0 * by ** min(1.0, i / 5) for i in range(8))]


@pytest.mark.parametrize(
    ("z_e", "codes", "expected"),
    [
        (grown(2.1), [*LEVEL, *LEVEL], "warning"),
        (grown(1.9), [*LEVEL, *LEVEL], "passes"),
        (grown(2.1), grown(1.8), "warning"),
        (grown(2.1), grown(2.0), "passes"),
        (grown(2.1)[9:], LEVEL[:7], "cannot judge"),
        ([*grown(2.1)], [0.0] * 16, "cannot judge"),
        # it grew early, and then no more
        ([4.0, 8.0, 12.0, 16.0, *[20.0] * 12], [4.0] * 16, "passes"),
        # up and down is no drift
        ([*LEVEL, 4.0, 4.0, 4.0, 20.0, 20.0, 4.0, 9.0, 9.0], [4.0] * 16, "passes"),
    ],
)
def test_limits(z_e: list[float], codes: list[float], expected: str) -> None:
    assert says("VQ524", course(z_e, codes)) == expected
