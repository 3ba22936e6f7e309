import numpy as np
import pytest
from scipy import stats

from vqdoctor.metrics.expectation import expected_active, expected_used


@pytest.mark.parametrize(("codes", "vectors"), [(1, 5), (64, 1), (256, 256), (512, 5767), (8192, 100_000)])
def test_used_is_the_formula(codes, vectors):
    assert expected_used(codes, vectors) == pytest.approx(codes * (1 - (1 - 1 / codes) ** vectors))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize(("codes", "vectors"), [(2, 7), (64, 1), (256, 4096), (512, 5767), (1024, 65_536)])
def test_active_is_scipys_binomial_tail(codes, vectors, share):
    tail = stats.binom.sf(np.floor(share * vectors / codes), vectors, 1 / codes)
    assert expected_active(codes, vectors, share) == pytest.approx(codes * tail, rel=1e-9, abs=1e-9)


def test_active_is_what_uniform_draws_show():
    rng = np.random.default_rng(0)
    draws = rng.multinomial(6 * 128, np.full(128, 1 / 128), size=400)
    seen = (draws > 0.5 * 6).sum(axis=1).mean()
    assert expected_active(128, 6 * 128, 0.5) == pytest.approx(seen, rel=0.01)
