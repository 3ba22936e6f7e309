import numpy as np
import pytest


def _population(name, num_codes, rng):
    live = {"half": num_codes // 2, "few": max(2, num_codes // 32)}.get(name, num_codes)
    if name == "dirichlet":
        return rng.dirichlet(np.full(num_codes, 0.5))
    if name == "zipf":
        p = 1 / np.arange(1, num_codes + 1)
    else:
        p = np.where(np.arange(num_codes) < live, 1.0, 1e-3 if name == "half" else 1e-6)
    return p / p.sum()


def _draw(p, groups, size, concentration, rng):
    """Codes of `groups` samples, each of which prefers its own: Dirichlet(concentration · p), by an urn."""
    own = rng.choice(len(p), (groups, size), p=p)
    codes = own.copy()
    for i in range(1, size):
        fresh = rng.random(groups) < concentration / (concentration + i)
        earlier = codes[np.arange(groups), rng.integers(0, i, groups)]
        codes[:, i] = np.where(fresh, own[:, i], earlier)
    return codes.ravel(), np.repeat(np.arange(groups), size)


@pytest.fixture
def simulate():
    """Return a function that draws one data set: (codes, groups, true perplexity)."""

    def simulate(name, num_codes, groups, size, concentration, rng):
        p = _population(name, num_codes, rng)
        seen = p[p > 0]
        truth = float(np.exp(-(seen * np.log(seen)).sum()))
        return *_draw(p, groups, size, concentration, rng), truth

    return simulate
