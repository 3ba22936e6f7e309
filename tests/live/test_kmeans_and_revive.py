"""k-means against scikit-learn, and revival that the next EMA update does not undo."""

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from vqdoctor.live.kmeans import CHUNK_BYTES, kmeans, nearest
from vqdoctor.live.revive import dead_codes, revive
from vqdoctor.live.schedule import warm_up
from vqdoctor.reference.model import VectorQuantizerEMA2D


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


def test_the_threshold_is_relative_to_uniform_usage():
    """Uniform usage of 512 codes is 0.002 each: under an absolute 0.01, yet nothing is dead."""
    usage = torch.ones(512)
    assert len(dead_codes(usage, 0.1)) == 0
    usage[7] = 0.05
    assert dead_codes(usage, 0.1).tolist() == [7]


def test_never_every_code_is_dead():
    assert len(dead_codes(torch.zeros(8), 1.0)) == 0
    assert len(dead_codes(torch.tensor([1.0, 2.0, 3.0]), 1.0)) < 3


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.5])
def test_a_threshold_that_could_kill_all_is_refused(threshold):
    with pytest.raises(ValueError, match=r"above 0 and at most 1"):
        dead_codes(torch.ones(4), threshold)


def test_revived_codes_stay_where_they_were_put():
    torch.manual_seed(0)
    quantizer = VectorQuantizerEMA2D(8, 2, decay=0.99)
    quantizer.set_codes(torch.randn(8, 2) + 50.0, torch.tensor([100.0] + [1e-3] * 7))
    vectors = torch.randn(100, 2)
    usage = torch.tensor([100] + [0] * 7)
    revived = revive(
        quantizer.embedding,
        quantizer.ema_cluster_size,
        quantizer.ema_embedding_sum,
        usage=usage,
        vectors=vectors,
        generator=seeded(),
    )
    assert revived.tolist() == [1, 2, 3, 4, 5, 6, 7]
    placed = quantizer.embedding[revived].clone()
    assert (placed[:, None] == vectors).all(2).any(1).all()
    assert len(placed.unique(dim=0)) == 7
    counts = quantizer.ema_cluster_size[revived]
    assert counts.min() > 1.0
    torch.testing.assert_close(quantizer.ema_embedding_sum[revived], placed * counts[:, None])
    quantizer.train()(torch.full((1, 2, 3, 3), 50.0))
    torch.testing.assert_close(quantizer.embedding[revived], placed, atol=1e-3, rtol=1e-3)


def test_live_codes_are_left_alone_and_vectors_may_run_out():
    embedding = torch.zeros(6, 2)
    revived = revive(
        embedding,
        None,
        None,
        usage=torch.tensor([5, 5, 0, 0, 0, 0]),
        vectors=torch.ones(3, 2),
        generator=seeded(),
    )
    assert revived.tolist() == [2, 3, 4]
    assert embedding.sum(1).tolist() == [0.0, 0.0, 2.0, 2.0, 2.0, 0.0]


def test_the_weight_rises_linearly_to_one():
    assert [warm_up(epoch, 10) for epoch in (0, 4, 9, 10, 99)] == [0.1, 0.5, 1.0, 1.0, 1.0]
    assert warm_up(0, 0) == 1.0
