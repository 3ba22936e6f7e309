"""The public atomic test of codebooks, whole: see `atomic`. `make bench` prints its table."""

from __future__ import annotations

import pytest
from atomic import MEANS, PUBLISHED, batches, judged, trained

pytestmark = pytest.mark.bench

CODES, SAMPLES, STEPS = 16_384, 50_000, 40
"""The published test takes 2,000 steps; codes that start in the data need few."""


def test_placed_and_revived_codes_reach_the_best_published(capsys: pytest.CaptureFixture[str]) -> None:
    """The best method reached 99.4 %, perplexity 14,404 and error 1.04 at the mean where each was worst.

    Codes that are placed in the data move with it, so all means give the same figures up to rounding.
    """
    found = []
    for at, mean in enumerate(MEANS):
        codes = trained(batches(mean, SAMPLES, STEPS + 1), CODES)
        (unseen,) = batches(mean, 4 * SAMPLES, 1, seed=1)
        found.append(judged(codes, unseen))
        others = ", ".join(f"{name} {row[at][0]:g} % / {row[at][1]:,}" for name, row in PUBLISHED.items())
        with capsys.disabled():
            print(
                f"\nmean {mean:g}: {100 * found[-1].used:.2f} % used, perplexity "
                f"{found[-1].perplexity:,.0f}, error {found[-1].error:.4f}; published {others}",
                flush=True,
            )
    assert min(figures.used for figures in found) >= 0.994
    assert min(figures.perplexity for figures in found) >= 14_404
    assert max(figures.error for figures in found) <= 1.04
