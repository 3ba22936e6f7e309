"""VQ523 usage-oscillates just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import Course


def course(perplexity: list[float]) -> Course:
    n = len(perplexity)
    return Course.healthy(
        perplexity=tuple(perplexity), steps=tuple(range(n)), active=(250,) * n, revived=(0,) * n,
        z_e_norm=(20.0,) * n, code_norm=(20.0,) * n,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("perplexity", "expected"),
    [
        ([100.0, 121.0] * 8, "warning"),
        ([100.0, 119.0] * 8, "passes"),
        ([100.0, 121.0] * 7, "cannot judge"),
        # only the second half counts: a training is restless at its start
        ([100.0, 121.0] * 4 + [110.0] * 8, "passes"),
        # a steady fall does not turn, however steep
        ([200.0 * 0.7**i for i in range(16)], "passes"),
        # up twice and down twice: it turns every other time
        ([100.0, 150.0, 225.0, 150.0] * 4, "warning"),
    ],
)
def test_limits(perplexity: list[float], expected: str) -> None:
    assert says("VQ523", course(perplexity)) == expected
