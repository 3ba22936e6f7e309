"""The largest perplexity of codes of which a sample saw few, against simulated usages."""

from __future__ import annotations

import numpy as np
import pytest

from vqdoctor.checks._usage import most_perplexity


@pytest.mark.parametrize("seed", range(5))
def test_no_drawn_usage_is_above_the_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(200):
        codes, choices = int(rng.integers(2, 300)), int(rng.integers(1, 3_000))
        usage = rng.dirichlet(np.full(codes, 10.0 ** rng.uniform(-3, 1)))
        chosen = len(np.unique(rng.choice(codes, size=choices, p=usage)))
        known = usage[usage > 0]
        assert np.exp(-(known * np.log(known)).sum()) <= most_perplexity(chosen, codes, choices) + 1e-9


def test_many_choices_leave_the_codes_that_were_hit() -> None:
    assert most_perplexity(5, 64, 10**9) == pytest.approx(5, abs=1e-4)
    assert most_perplexity(64, 64, 10) == pytest.approx(64)
    assert most_perplexity(1, 64, 1) == pytest.approx(64)
