"""The mean vector of each code, against a loop over the codes."""

from __future__ import annotations

import numpy as np
import pytest

from vqdoctor.metrics import means
from vqdoctor.metrics.match import match


@pytest.mark.parametrize("block", [7, 10_000])
def test_each_code_has_the_mean_of_its_vectors(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(means, "_BLOCK", block)
    rng = np.random.default_rng(0)
    vectors, codes = rng.normal(size=(200, 3)).astype(np.float32), rng.integers(0, 9, 200)
    counts, found = means.code_means(vectors, codes, 12)
    for code in range(12):
        own = vectors[codes == code]
        assert counts[code] == len(own)
        assert np.allclose(found[code], own.mean(axis=0) if len(own) else 0.0, atol=1e-6)


def test_the_gain_of_the_means_is_what_an_error_with_them_lacks() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(500, 4)).astype(np.float32)
    codebook = rng.normal(size=(8, 4)).astype(np.float32)
    found = match(vectors, codebook)
    nearest = np.square(vectors[:, None] - codebook).sum(-1).argmin(1)
    _, moved = means.code_means(vectors, nearest, 8)
    before = np.square(vectors - codebook[nearest]).sum()
    after = np.square(vectors - moved[nearest]).sum()
    assert found is not None and found.mean_gain == pytest.approx(1 - after / before, rel=1e-4)
