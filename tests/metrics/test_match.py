import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from vqdoctor.metrics.geometry import effective_rank
from vqdoctor.metrics.match import match, nearest, unit


def rows(seed, count, dim, scale=1.0, offset=0.0):
    return (np.random.default_rng(seed).normal(size=(count, dim)) * scale + offset).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("chunk", [64, 1 << 23])
def test_assignment_is_scipys(monkeypatch, offset, chunk):
    monkeypatch.setattr("vqdoctor.metrics.match._CHUNK_BYTES", chunk * 50)
    z, codes = rows(0, 700, 6, offset=offset), rows(1, 50, 6, offset=offset)
    distances = cdist(z.astype(np.float64), codes.astype(np.float64))
    found = nearest(z, codes)
    np.testing.assert_array_equal(found.indices, distances.argmin(1))
    np.testing.assert_allclose(found.vector_distance, distances.min(1), rtol=1e-4)
    np.testing.assert_allclose(found.code_distance, distances.min(0), rtol=1e-4)


def test_numbers_are_their_definitions():
    z, codes = rows(0, 900, 5, scale=2, offset=1), rows(1, 32, 5, offset=-0.5)
    found = match(z, codes)
    distances = cdist(z, codes)
    variance = np.sum(z.var(axis=0))
    assert found.quantization_error == pytest.approx(np.mean(distances.min(1) ** 2) / variance, rel=1e-4)
    assert found.mean_offset == pytest.approx(
        np.linalg.norm(z.mean(0) - codes.mean(0)) / np.sqrt(variance), rel=1e-4
    )
    assert found.nearest_data == pytest.approx(np.median(distances.min(0)) / np.sqrt(variance), rel=1e-4)
    assert found.scale_ratio == pytest.approx(np.sqrt(np.mean(z**2) / np.mean(codes**2)), rel=1e-4)
    assert found.data_effective_rank == pytest.approx(effective_rank(z))


def test_a_perfect_codebook_and_one_code_at_the_mean():
    z = rows(0, 40, 3)
    assert match(z, z).quantization_error == pytest.approx(0, abs=1e-10)
    centre = np.tile(z.mean(0), (4, 1))
    assert match(z, centre).quantization_error == pytest.approx(1, rel=1e-5)


def test_what_has_no_scale_is_not_compared():
    codes = rows(0, 8, 3)
    assert match(np.full((50, 3), 0.3, np.float32), codes) is None
    assert match(codes, np.zeros((4, 3), np.float32)) is None


def test_unit_leaves_zero_rows():
    scaled = unit(np.array([[3, 4], [0, 0]], dtype=np.float32))
    np.testing.assert_allclose(scaled, [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_memory_is_chunks_not_all_pairs():
    z, codes = rows(0, 20_000, 8), rows(1, 4096, 8)
    tracemalloc.start()
    nearest(z, codes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # all pairs: 328 MB
