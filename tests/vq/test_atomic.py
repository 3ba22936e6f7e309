"""The public atomic test of codebooks, scaled down: see `atomic`; whole in tests/benchmarks."""

from __future__ import annotations

import faiss
import pytest
import torch
from atomic import DIM, batches, judged, trained

from vqdoctor.vq.kmeans import codes_from_data

CODES, SAMPLES, STEPS = 1_024, 3_125, 40
"""A sixteenth of the public test, with the same 3 vectors a code in each step."""


def faiss_codes(vectors: torch.Tensor) -> torch.Tensor:
    peer = faiss.Kmeans(DIM, CODES, niter=20, seed=1, min_points_per_centroid=1)
    peer.train(vectors.numpy())
    return torch.from_numpy(peer.centroids)


@pytest.mark.parametrize("mean", [0.0, 3.0, 8.0])
def test_placed_and_revived_codes_serve_unseen_vectors_as_faiss_does(mean: float) -> None:
    """faiss gets all vectors of the training at once; its error is less by 0.5 %, with perplexity 0.3 % more.

    The figures to reach are those of the best published method at its worst mean: usage 99.4 %, and
    14,404 / 16,384 of the codes as perplexity. Its error is one of 16,384 codes; with 1,024 the oracle says
    what can be reached.
    """
    data = list(batches(mean, SAMPLES, STEPS + 1))
    (unseen,) = batches(mean, 4 * SAMPLES, 1, seed=1)
    found = judged(trained(iter(data), CODES), unseen)
    oracle = judged(faiss_codes(torch.cat(data)), unseen)
    assert found.used >= 0.994
    assert found.perplexity >= 14_404 / 16_384 * CODES
    assert found.error <= 1.01 * oracle.error
    assert found.perplexity >= 0.99 * oracle.perplexity


def test_the_placement_alone_is_as_good_as_faiss_on_the_same_vectors() -> None:
    (vectors,) = batches(3.0, 4 * SAMPLES, 1)
    codes, counts = codes_from_data(vectors, CODES, generator=torch.Generator().manual_seed(0))
    assert (counts > 0).all()
    ours, oracle = judged(codes, vectors), judged(faiss_codes(vectors), vectors)
    assert ours.error == pytest.approx(oracle.error, rel=0.01)


@pytest.mark.parametrize(("mean", "most"), [(3.0, 0.03), (8.0, 0.005)])
def test_without_the_remedies_the_codes_collapse(mean: float, most: float) -> None:
    """Published at these means for an EMA alone, with 16,384 codes: 2.7 % and 0.1 % used."""
    data = batches(mean, SAMPLES, STEPS + 1)
    (unseen,) = batches(mean, 4 * SAMPLES, 1, seed=1)
    assert judged(trained(data, CODES, remedies=False), unseen).used <= most
