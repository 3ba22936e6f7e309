import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from vqdoctor.metrics.geometry import (
    copies,
    effective_rank,
    faded_rows,
    histogram_quantiles,
    init_box_rows,
    live_median,
    live_rows,
    middle,
    quantiles,
    rank_of,
    row_norms,
    spread,
    variance_shares,
)


def rows(seed, count, dim):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def naive_duplicates(codes, tolerance):
    near = squareform(pdist(codes.astype(np.float64))) <= tolerance
    return sum(near[i, :i].any() for i in range(len(codes)))


@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(0, 5))
def test_duplicates_are_those_of_all_pairs(seed, close, equal):
    rng = np.random.default_rng(seed)
    codes = rows(seed, 60, 6)
    codes[40 : 40 + close] = codes[rng.integers(0, 20, close)] + 1e-5 * rng.normal(size=(close, 6))
    codes[55 : 55 + equal] = codes[3]
    tolerance = 1e-3 * spread(codes)
    assert copies(codes, tolerance).sum() == naive_duplicates(codes, tolerance) == close + equal


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_every_copy_on_a_crowded_plane_is_found(dim):
    from scipy.spatial import cKDTree

    codes = np.random.default_rng(dim).standard_normal((4000, dim)).astype(np.float32)
    tolerance = {1: 1e-5, 2: 6e-3, 3: 0.03}[dim]
    pairs = cKDTree(codes.astype(np.float64)).query_pairs(tolerance, output_type="ndarray")
    found = copies(codes, tolerance)
    assert 20 < found.sum() <= len(np.unique(pairs))
    assert found[pairs].any(axis=1).all()  # of each pair one is a copy


def test_all_rows_equal_or_nearly_so():
    codes = np.ones((500, 8), np.float32)
    assert copies(codes, 0.0).sum() == 499
    assert copies(codes + 1e-6 * rows(0, 500, 8), 1e-3).sum() == 499


def test_a_far_offset_does_not_make_duplicates():
    assert copies(rows(0, 300, 4) + 1000, 1e-3).sum() == 0


def test_effective_rank_is_that_of_scipys_svd_of_centred_rows():
    codes = rows(0, 50, 7) * np.array([5, 3, 1, 1, 0.1, 0.1, 0]) + 40
    power = np.linalg.svd(codes - codes.mean(0), compute_uv=False) ** 2
    p = power / power.sum()
    expected = np.exp(-np.sum(p[p > 0] * np.log(p[p > 0])))
    assert effective_rank(codes.astype(np.float32)) == pytest.approx(expected, rel=1e-4)
    assert effective_rank(rows(1, 3, 100)) <= 3
    assert effective_rank(np.full((9, 4), 0.1, np.float32)) == 0


@pytest.mark.parametrize("count", [50, 4])  # more rows than dimensions, and fewer
def test_weighted_shares_are_those_of_rows_repeated_as_often(count):
    codes = rows(3, count, 7) + 5
    times = np.random.default_rng(4).integers(0, 4, count)
    shares, repeated = variance_shares(codes, times), variance_shares(np.repeat(codes, times, axis=0))
    assert np.allclose(shares[: min(count, 7)], repeated[: min(count, 7)], atol=1e-9)
    assert shares.sum() == pytest.approx(1) and (np.diff(shares) <= 0).all()
    assert rank_of(shares) == pytest.approx(effective_rank(np.repeat(codes, times, axis=0)), rel=1e-6)


def test_equal_rows_vary_in_no_direction():
    shares = variance_shares(np.full((9, 4), 0.1, np.float32), np.arange(9))
    assert len(shares) == 0 and rank_of(shares) == 0


def test_live_rows_survive_a_majority_of_blown_up_ones_where_use_is_known():
    norms = np.array([1.0, 1.2, 0.9, 3e5, 2e5, 4e5, 3e5, 0.0])
    used = np.array([True, True, True, False, False, False, False, False])
    assert live_rows(norms, live_median(norms, used)).tolist() == used.tolist()


def test_decayed_rows_are_dust_even_as_the_majority():
    norms = np.array([2.0, 2.5, *[1e-16] * 10])
    assert live_median(norms) == 2.25
    assert live_rows(norms, live_median(norms)).sum() == 2


def test_spread_and_norms():
    codes = rows(0, 40, 5) + 3
    assert row_norms(codes) == pytest.approx(np.linalg.norm(codes, axis=1), rel=1e-6)
    assert spread(codes) == pytest.approx(np.sqrt(np.mean(np.sum((codes - codes.mean(0)) ** 2, 1))), rel=1e-5)


def test_init_box_leaves_out_what_has_decayed():
    codes = rows(0, 64, 4)
    codes[:10] = np.random.default_rng(0).uniform(-1 / 64, 1 / 64, (10, 4))
    codes[10:15] = 0
    codes[15] = 1e-16
    assert init_box_rows(codes) == 10


def test_quantiles_are_of_the_sorted_counts():
    counts = np.random.default_rng(0).permutation(97)
    assert histogram_quantiles(counts, 5) == (0, 24, 48, 72, 96)


def test_rows_that_have_faded_to_zero_are_told_from_those_that_stand():
    codes = rows(0, 100, 8)
    codes[:40] *= 1e-5
    assert faded_rows(codes).tolist() == [True] * 40 + [False] * 60
    assert not faded_rows(codes + 1e-2).any() and not faded_rows(codes[40:]).any()


@pytest.mark.parametrize(
    "values", [[3.0], [2.0, 1.0], [5.0, 1.0, 3.0], [1.0, np.inf], [np.nan, 1.0, 2.0, 3.0]]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_middle_is_numpys_median(values: list[float], dtype: type) -> None:
    array = np.array(values, dtype=dtype)
    np.testing.assert_equal(middle(array), float(np.median(array)))


@pytest.mark.parametrize("values", [[3.0], [2.0, 1.0], [5.0, 1.0, 3.0, 8.0], [np.nan, 1.0, 2.0, 3.0]])
def test_quantiles_are_numpys(values: list[float]) -> None:
    shares = [0.0, 0.05, 0.5, 0.75, 1.0]
    np.testing.assert_allclose(quantiles(np.array(values), *shares), np.quantile(values, shares), rtol=1e-15)


def test_wide_rows_in_several_pieces_have_the_rank_of_their_transpose():
    codes = rows(3, 700, 1024)  # more than one piece, and more dimensions than rows
    centred = codes - codes.mean(axis=0, dtype=np.float64)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    np.testing.assert_allclose(variance_shares(codes)[:5], (values / values.sum())[:5], rtol=1e-6)
