import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from vqdoctor.metrics.entropy import (
    digamma_half,
    grassberger_entropy,
    grassberger_g,
    plug_in_entropy,
    weighed,
)

counts = hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 500)).filter(lambda c: c.sum() > 0)


def test_digamma_at_half_integers_is_scipys():
    m = np.concatenate([np.arange(200), [10**4, 10**6, 10**9]])
    np.testing.assert_allclose(digamma_half(m), special.digamma(m + 0.5), rtol=1e-12)


def test_g_is_the_published_formula():
    n = np.arange(1, 400)
    published = special.digamma(n) + 0.5 * np.where(n % 2, -1, 1) * (
        special.digamma((n + 1) / 2) - special.digamma(n / 2)
    )
    np.testing.assert_allclose(grassberger_g(n), published, rtol=1e-11)


@given(counts)
def test_plug_in_is_scipys_entropy(c):
    assert plug_in_entropy(c) == pytest.approx(stats.entropy(c), abs=1e-12)


@given(counts)
def test_grassberger_is_a_naive_loop(c):
    total = int(c.sum())
    naive = math.log(total)
    for n in map(int, c):
        if n:
            half = special.digamma((n + 1) / 2) - special.digamma(n / 2)
            naive -= n / total * (special.digamma(n) + 0.5 * (-1) ** n * half)
    assert grassberger_entropy(c) == pytest.approx(naive, abs=1e-10)


@pytest.mark.parametrize("most", [3, 10**6])  # computed for each number once, and for each count
def test_a_sum_over_numbers_is_a_sum_over_counts(most: int) -> None:
    counted = np.random.default_rng(0).integers(0, most, (2, 50))
    np.testing.assert_array_equal(weighed(counted), counted * grassberger_g(counted))


@given(counts, st.randoms(use_true_random=False))
def test_neither_order_nor_empty_codes_matter(c, random):
    shuffled = [*list(c), 0, 0, 0]
    random.shuffle(shuffled)
    assert plug_in_entropy(shuffled) == pytest.approx(plug_in_entropy(c), abs=1e-12)
    assert grassberger_entropy(shuffled) == pytest.approx(grassberger_entropy(c), abs=1e-12)


@given(counts.filter(lambda c: len(c) > 1))
def test_merging_two_codes_never_adds_entropy(c):
    merged = np.concatenate([[c[0] + c[1]], c[2:]])
    assert plug_in_entropy(merged) <= plug_in_entropy(c) + 1e-12


def test_the_correction_removes_most_of_the_bias():
    rng = np.random.default_rng(0)
    samples = rng.multinomial(4 * 256, np.full(256, 1 / 256), size=200)
    truth = math.log(256)
    assert plug_in_entropy(samples).mean() < truth - 0.1
    assert grassberger_entropy(samples).mean() == pytest.approx(truth, abs=0.01)
