import sys
import tracemalloc

import numpy as np
import pytest
from cost import costs_at_most
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vqdoctor.metrics.counts import GroupedCounts
from vqdoctor.metrics.interval import student
from vqdoctor.metrics.perplexity import ema_interval, estimate

POPULATIONS = ("uniform", "dirichlet", "zipf", "half", "few")
INDEPENDENT = 1e9


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=80),
    st.permutations(range(10)),
)
def test_stays_between_one_and_k_and_knows_no_names(pairs, renamed):
    codes, groups = zip(*pairs, strict=True)
    found = estimate(GroupedCounts.from_indices(codes, 10, groups))
    assert 1 <= found.low <= found.value <= found.high <= 10 + 1e-9
    other = estimate(GroupedCounts.from_indices([renamed[c] for c in codes], 10, groups))
    assert other.value == pytest.approx(found.value)
    assert other.plug_in == pytest.approx(found.plug_in)


def test_is_the_same_every_time():
    counts = GroupedCounts.from_indices(np.random.default_rng(0).integers(0, 50, 900), 64)
    assert estimate(counts, seed=3) == estimate(counts, seed=3)


def test_one_code_is_a_perplexity_of_one():
    found = estimate(GroupedCounts.from_indices(np.zeros(28752, int), 256, np.arange(28752) // 16))
    assert found.value == found.low == found.plug_in == 1
    assert found.high < 1.01


def test_a_single_vector_tells_nothing():
    found = estimate(GroupedCounts.from_indices([3], 64))
    assert (found.low, found.high, found.effective_size) == (1, pytest.approx(64), None)


def test_correlation_widens_the_interval_upwards(simulate):
    rng = np.random.default_rng(0)
    codes, groups, truth = simulate("uniform", 256, 64, 64, 8, rng)
    blind = estimate(GroupedCounts.from_indices(rng.permutation(codes), 256, groups))
    aware = estimate(GroupedCounts.from_indices(codes, 256, groups))
    assert blind.high < 0.9 * truth  # what ignoring the samples would report, with confidence
    assert aware.high >= truth
    assert aware.effective_size == pytest.approx(len(codes) / 8, rel=0.2)


@pytest.mark.parametrize(("size", "concentration"), [(1, INDEPENDENT), (16, 8), (64, 8), (64, 40)])
def test_covers_the_truth_quick(simulate, size, concentration):
    rng = np.random.default_rng(5)
    hits = []
    for name in POPULATIONS:
        for ratio in (4, 16):
            for _ in range(6):
                codes, groups, truth = simulate(name, 256, 256 * ratio // size, size, concentration, rng)
                found = estimate(GroupedCounts.from_indices(codes, 256, groups))
                hits.append(found.low <= truth * (1 + 1e-9) and truth <= found.high * (1 + 1e-9))
    assert np.mean(hits) >= 0.93


@pytest.mark.accept
@pytest.mark.parametrize(("size", "concentration"), [(1, INDEPENDENT), (16, 8), (64, 8), (64, 40)])
def test_covers_the_truth_table(simulate, size, concentration, capsys):
    rng = np.random.default_rng(1)
    worst, lines = 1.0, []
    for num_codes in (64, 256, 1024):
        for ratio in (1, 4, 16, 64):
            samples = num_codes * ratio // size
            if samples < 4:
                continue
            row = []
            for name in POPULATIONS:
                hits, widths = [], []
                for _ in range(60):
                    codes, groups, truth = simulate(name, num_codes, samples, size, concentration, rng)
                    found = estimate(GroupedCounts.from_indices(codes, num_codes, groups))
                    hits.append(found.low <= truth * (1 + 1e-9) and truth <= found.high * (1 + 1e-9))
                    widths.append((found.high - found.low) / truth)
                worst = min(worst, float(np.mean(hits)))
                row.append(f"{name} {np.mean(hits):4.0%} ±{np.mean(widths) / 2:4.0%}")
            lines.append(f"{size:3} a sample, K {num_codes:5}, N/K {ratio:3}: {' | '.join(row)}")
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert worst >= 0.85


@pytest.mark.parametrize(
    ("vectors", "codes", "size", "seconds"), [(28_752, 1024, 16, 0.3), (100_000, 8192, 1, 2.0)]
)
def test_is_quick_and_small(vectors, codes, size, seconds):
    indices = np.random.default_rng(0).integers(0, codes, vectors)

    def estimated() -> None:
        estimate(GroupedCounts.from_indices(indices, codes, np.arange(vectors) // size))

    costs_at_most(seconds, estimated)
    tracemalloc.start()
    estimated()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # groups × codes would be 15 MB and 6.5 GB


def test_student_is_scipys():
    for degrees in (1, 2, 5, 9, 10, 15, 63, 1000):
        assert student(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=0.01)


def test_ema_interval_narrows_with_the_vectors_and_holds_the_plain_estimate():
    counts = np.random.default_rng(0).gamma(2.0, size=128)
    plain = float(np.exp(stats.entropy(counts)))
    wide, narrow = ema_interval(counts, 500), ema_interval(counts, 50_000)
    assert wide[0] < narrow[0] < plain < narrow[1] < wide[1] <= 128
