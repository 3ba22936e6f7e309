"""k-means against scikit-learn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from vqdoctor.reference.quantizer import VectorQuantizerEMA2D
from vqdoctor.vq.kmeans import BLOCK, CHUNK_BYTES, codes_from_data, kmeans, nearest


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pixels():
    return torch.tensor(load_digits().data, dtype=torch.float32)


@pytest.mark.parametrize("codes", [10, 128])
def test_inertia_is_within_five_percent_of_sklearns(pixels, codes):
    found = kmeans(pixels, codes, generator=seeded(), iterations=50)
    oracle = KMeans(codes, n_init=1, random_state=0).fit(pixels.double().numpy())
    assert found.inertia <= 1.05 * oracle.inertia_
    assert found.counts.sum() == len(pixels)


def test_the_counts_and_inertia_are_the_centres_own(pixels):
    found = kmeans(pixels, 20, generator=seeded(), iterations=3)
    distances = torch.cdist(pixels.double(), found.centres.double()).square()
    assert torch.equal(torch.bincount(distances.argmin(1), minlength=20), found.counts)
    assert found.inertia == pytest.approx(distances.min(1).values.sum().item(), rel=1e-4)


def test_kmeans_is_seeded_and_leaves_the_global_random_state(pixels):
    before = torch.random.get_rng_state()
    one, same, other = (kmeans(pixels, 16, generator=seeded(seed)).centres for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_centre_stays_empty():
    """Many equal points and a few outliers: random starts coincide, and must be spread."""
    points = torch.cat([torch.zeros(500, 2), torch.eye(2) * 9, -torch.eye(2) * 9])
    found = kmeans(points, 5, generator=seeded())
    assert found.counts.min() >= 1
    assert found.inertia == 0.0


def test_a_subset_is_used_where_there_are_many_points(pixels):
    assert kmeans(pixels, 8, generator=seeded(), points_per_code=10).counts.sum() == 80


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="4 centres needs as many points, got 3"):
        kmeans(torch.zeros(3, 2), 4, generator=seeded())


def test_chunks_do_not_change_the_nearest():
    centres = torch.randn(700, 5, generator=seeded(1))
    points = torch.randn(CHUNK_BYTES // (4 * len(centres)) + 3, 5, generator=seeded())
    indices, distances = nearest(points, centres)
    exact = torch.cdist(points.double(), centres.double()).square().min(1)
    assert torch.equal(indices, exact.indices)
    torch.testing.assert_close(distances.double(), exact.values, atol=1e-5, rtol=1e-4)


@settings(max_examples=50)
@given(
    st.integers(1, 60),
    st.sampled_from([1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5]),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_nearest_is_the_nearest(vectors, codes, dim, seed):
    """For any number of centres, also where copies of the last one fill up a block."""
    points, centres = (torch.randn(n, dim, generator=seeded(seed)) for n in (vectors, codes))
    indices, distances = nearest(points, centres)
    exact = torch.cdist(points.double(), centres.double()).square()
    assert indices.max() < codes
    own = exact.gather(1, indices[:, None])[:, 0]
    torch.testing.assert_close(distances.double(), own, atol=1e-6, rtol=1e-5)
    # the search rounds |c|^2, about 10, in float32
    torch.testing.assert_close(own, exact.min(1).values, atol=1e-5, rtol=0)


def test_an_offset_costs_no_precision():
    """Expanded around the origin, |c|^2 would be 6e8 and its float32 rounding 32."""
    points, centres = torch.randn(300, 6, generator=seeded()), torch.randn(50, 6, generator=seeded(1))
    moved = points + 1e4, centres + 1e4
    exact = torch.cdist(moved[0].double(), moved[1].double()).square().min(1)
    assert (nearest(*moved)[0] == exact.indices).float().mean() > 0.99


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_indices_stay_in_range_for_points_that_are_not_finite(bad):
    """Training that diverges must fail for its own reason, not with an index out of range."""
    indices, _ = nearest(torch.full((4, 3), bad), torch.randn(5, 3, generator=seeded()))
    assert indices.max() < 5
    indices, _ = nearest(torch.randn(4, 3, generator=seeded()), torch.full((5, 3), bad))
    assert indices.max() < 5


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_points_that_are_not_finite_are_refused(bad):
    points = torch.zeros(20, 3)
    points[7, 1] = points[9, 2] = bad
    with pytest.raises(ValueError, match="2 of 20 are not, the first is point 7"):
        kmeans(points, 4, generator=seeded())


@settings(max_examples=30)
@given(st.integers(2, 12), st.integers(1, 30), st.integers(0, 99))
def test_as_many_centres_as_differing_points_serve_each_exactly(differing, copies, seed):
    """Random starts fall on equal points, and the worst served points are equal too."""
    points = torch.randn(differing, 3, generator=seeded(seed)).repeat(copies, 1)
    found = kmeans(points, differing, generator=seeded(seed), iterations=50, points_per_code=10**6)
    assert found.inertia == pytest.approx(0.0, abs=1e-9)
    assert found.counts.tolist() == [copies] * differing


def test_more_centres_than_differing_points_leave_the_others_empty():
    points = torch.randn(5, 3, generator=seeded()).repeat(40, 1)
    found = kmeans(points, 9, generator=seeded(), iterations=50)
    assert (found.counts > 0).sum() == 5
    assert found.inertia == pytest.approx(0.0, abs=1e-9)
    assert found.centres.isfinite().all()


@pytest.mark.parametrize("seed", range(4))
def test_empty_centres_do_not_move_to_equal_points(seed):
    """The hundred farthest points are equal, so that they deserve one centre and the next point another."""
    near = torch.randn(60, 2, generator=seeded()) * 0.1
    points = torch.cat([torch.zeros(5000, 2), near, torch.full((100, 2), 9.0), torch.full((1, 2), -5.0)])
    found = kmeans(points, 40, generator=seeded(seed), iterations=1, points_per_code=10**6)
    assert len(found.centres.unique(dim=0)) == 40


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 50), st.floats(1e-3, 1e3), st.floats(-100, 100), st.integers(0, 99))
def test_a_start_from_fewer_points_than_codes(vectors, codes, scale, offset, seed):
    """All codes differ, near a point each, and share the points out between them."""
    points = scale * (offset + torch.randn(vectors, 4, generator=seeded(seed)))
    placed, counts = codes_from_data(points, codes, generator=seeded(seed))
    again, _ = codes_from_data(points, codes, generator=seeded(seed))
    assert torch.equal(placed, again)
    assert placed.shape == (codes, 4)
    assert len(placed.unique(dim=0)) == codes
    assert counts.min() > 0
    assert float(counts.sum()) == pytest.approx(vectors, rel=1e-5)
    if codes >= vectors:
        spread = points.std(dim=0, correction=0) + 0.001 * points.abs().max()
        lengths = ((placed[:, None] - points) / spread).abs().amax(2).amin(1)
        assert lengths.max() < 0.1
        assert sorted(placed[:vectors].tolist()) == sorted(points.tolist())
        shares = torch.bincount(torch.cdist(placed.double(), points.double()).argmin(1), minlength=vectors)
        assert shares.max() - shares.min() <= 1


@pytest.mark.parametrize("value", [0.0, 1.0, -3e4])
def test_a_start_from_equal_points(value):
    placed, counts = codes_from_data(torch.full((50, 3), value), 16, generator=seeded())
    assert len(placed.unique(dim=0)) == 16
    torch.testing.assert_close(counts, torch.full((16,), 50 / 16))
    torch.testing.assert_close(placed, torch.full((16, 3), value), rtol=1e-3, atol=1e-3)


def test_a_start_from_many_points_is_that_of_kmeans(pixels):
    found = kmeans(pixels, 32, generator=seeded())
    placed, counts = codes_from_data(pixels, 32, generator=seeded())
    torch.testing.assert_close(placed, found.centres, rtol=0, atol=0)
    torch.testing.assert_close(counts, found.counts.float())


def test_a_start_from_few_points_survives_the_next_ema_update():
    """Codes of count zero would fall to the origin with the first update."""
    points = 5.0 + torch.randn(6, 2, generator=seeded())
    quantizer = VectorQuantizerEMA2D(32, 2, decay=0.9)
    placed, counts = codes_from_data(points, 32, generator=seeded())
    quantizer.set_codes(placed, counts)
    quantizer.train()(points.T.reshape(1, 2, 6, 1))
    torch.testing.assert_close(quantizer.embedding, placed, rtol=0.02, atol=0.02)


def test_a_start_from_no_points_is_refused():
    with pytest.raises(ValueError, match="there are no points"):
        codes_from_data(torch.zeros(0, 3), 4, generator=seeded())
