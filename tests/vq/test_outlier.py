"""One code far above an even histogram is told from a collapse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vqdoctor.probes._usage import usage_from_indices
from vqdoctor.vq.codebook import dead_codes
from vqdoctor.vq.outlier import others

RNG = np.random.default_rng(0)
EVEN = RNG.integers(10, 40, 127).astype(np.float64)


@pytest.mark.parametrize(
    ("counts", "stands_out"),
    [
        ([20 * EVEN.sum(), *EVEN], True),
        ([0.35 * EVEN.sum(), *EVEN], True),
        ([0.32 * EVEN.sum(), *EVEN], False),
        ([10.1 * EVEN[:20].max(), *EVEN[:20]], True),
        ([9.9 * EVEN[:20].max(), *EVEN[:20]], False),
        # what a collapse leaves over
        ([60 * EVEN.sum(), *EVEN], False),
        ([4000.0, *EVEN[:20], *np.zeros(107)], False),
        # an EMA on its way down: the others were never chosen
        ([4000.0, *np.full(127, 20.0)], False),
        ([4000.0, 4000.0, *EVEN[1:]], False),
        ([4000.0, *EVEN[:14]], False),
    ],
)
def test_what_stands_out(counts: list[float], stands_out: bool) -> None:
    array = np.array(counts)
    for given in (array, torch.from_numpy(array)):
        rest = others(given)
        assert (rest is not None) == stands_out
        if rest is not None:
            assert rest.tolist() == counts[1:]


def test_codes_in_use_beside_padding_are_not_dead() -> None:
    """A fix moves dead codes, and must leave the ones that are in use where they are."""
    counts = np.array([10 * EVEN.sum(), *EVEN])
    assert (counts * 128 < 0.1 * counts.sum()).sum() > 20  # by the share of all usage
    assert not dead_codes(counts).any()
    assert dead_codes(np.array([10 * EVEN.sum(), *EVEN[:-1], 0.0])).sum() == 1


def test_usage_counts_active_codes_by_the_share_of_the_others() -> None:
    real = RNG.integers(1, 128, 2_400)
    padded = np.concatenate([real, np.zeros(10_000, dtype=np.int64)])
    usage = usage_from_indices(padded, 128, layer="vq")
    assert usage.active == 128 and usage.rest_perplexity == pytest.approx(127, rel=0.05)
    assert usage_from_indices(real, 128, layer="vq").rest_perplexity is None
