import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqdoctor.metrics.counts import BLOCK, GroupedCounts

draws = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=2, max_size=40)


def table(pairs):
    codes, groups = zip(*pairs, strict=True)
    return GroupedCounts.from_indices(codes, 7, groups)


@given(draws)
def test_totals_sizes_and_unseen_mass_are_a_naive_count(pairs):
    counts = table(pairs)
    assert counts.totals.tolist() == [sum(c == k for c, _ in pairs) for k in range(7)]
    if counts.samples != 1:
        assert sorted(counts.sizes) == sorted(
            sum(g == name for _, g in pairs) for name in {g for _, g in pairs}
        )
        lonely = [c for c, g in pairs if not any(c == d and g != h for d, h in pairs)]
        assert counts.unseen_mass() == pytest.approx(len(lonely) / len(pairs))


@given(draws.filter(lambda pairs: len({g for _, g in pairs}) > 1))
def test_design_effect_is_kishs_on_all_pairs(pairs):
    within = [(a, b) for a, b in itertools.permutations(range(len(pairs)), 2) if pairs[a][1] == pairs[b][1]]
    between = [(a, b) for a, b in itertools.permutations(range(len(pairs)), 2) if pairs[a][1] != pairs[b][1]]
    same_between = np.mean([pairs[a][0] == pairs[b][0] for a, b in between])
    expected = 1.0
    if within and same_between < 1:
        same_within = np.mean([pairs[a][0] == pairs[b][0] for a, b in within])
        rho = (same_within - same_between) / (1 - same_between)
        expected = 1 + min(max(rho, 0), 1) * len(within) / len(pairs)
    assert table(pairs).design_effect() == pytest.approx(expected)


def test_design_effect_of_copies_is_the_group_size_and_of_independent_vectors_one():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(500), 16)
    copies = np.repeat(rng.integers(0, 64, 500), 16)
    assert GroupedCounts.from_indices(copies, 64, groups).design_effect() == pytest.approx(16, rel=0.02)
    independent = rng.integers(0, 64, 8000)
    assert GroupedCounts.from_indices(independent, 64, groups).design_effect() == pytest.approx(1, abs=0.1)


def test_without_groups_neighbours_stand_in_and_show_correlation():
    rng = np.random.default_rng(0)
    walk = np.repeat(rng.integers(0, 64, 500), 16)  # 16 neighbours alike
    known = GroupedCounts.from_indices(walk, 64)
    assert known.samples is None and known.sizes.max() <= BLOCK
    assert known.design_effect() > 8
    assert GroupedCounts.from_indices(rng.permutation(walk), 64).design_effect() < 1.5


def test_merged_parts_add_up():
    rng = np.random.default_rng(0)
    counts = GroupedCounts.from_indices(rng.integers(0, 9, 300), 9, np.arange(300) // 10)
    parts = counts.merged(np.arange(30) % 4, 4)
    assert parts.shape == (4, 9)
    assert (parts.sum(axis=0) == counts.totals).all()


@pytest.mark.parametrize("indices", [[], [-1, 2], [0, 7]])
def test_refuses_what_is_no_index(indices):
    with pytest.raises(ValueError, match="indices"):
        GroupedCounts.from_indices(indices, 7)
