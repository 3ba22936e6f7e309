"""False alarms and misses of the gate: 1,000 draws for every cell, from populations of known perplexity.

A cell is a number of codes, a number of vectors per code, and how many vectors a sample has. The
threshold stands 5 % under the true perplexity, where a fail is wrong, and 5 % above it, where a pass is.

Vectors of one sample are alike: each sample draws from a usage of its own, Dirichlet(CONCENTRATION · p).
A finite pool of such samples is drawn once for every usage. What the gate sees is drawn from it with
replacement, so the pool is the population, and its perplexity is known exactly. `make accept` prints the
table; goals: wrong at most 2.5 % of the verdicts, and on independent vectors a verdict in at least 95 %
of the draws from 64 vectors per code and 50 % from 16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from gate_reports import a_report, a_usage
from numpy.typing import NDArray

from vqdoctor.core.assertion import GateRules, parse_assertion
from vqdoctor.engine.gate.policy import Policy, hold
from vqdoctor.metrics.counts import GroupedCounts
from vqdoctor.metrics.entropy import plug_in_entropy
from vqdoctor.metrics.perplexity import Perplexity, estimate

pytestmark = pytest.mark.accept

DRAWS = 1000
CODES = (256, 1024, 8192)
RATIOS = (1, 2, 4, 16, 64)
SIZES = (1, 16, 64, 1024)
CONCENTRATION = 16.0
"""Two vectors of a sample share their code in 1/17 of the cases more than those of two samples."""
POOL = 2_000_000
"""Vectors of a pool; it holds at least 200 samples, and three times what is drawn."""
USAGES = ("even", "exponential", "sloping", "steep")

Floats = NDArray[np.float64]


def usage_of(name: str, codes: int, rng: np.random.Generator) -> Floats:
    """Even; exponentially distributed; p ~ rank^-1/2; p ~ 1/rank, as of a deployed speech codec."""
    rank = np.arange(1, codes + 1)
    weights = {
        "even": np.ones(codes),
        "exponential": rng.exponential(size=codes),
        "sloping": rank**-0.5,
        "steep": 1.0 / rank,
    }[name]
    return weights / weights.sum()


@dataclass(frozen=True, eq=False)
class Pool:
    """Samples by their counts: entries `start[s]` to `start[s + 1]` of `code` and `count` are sample s."""

    codes: int
    size: int
    start: NDArray[np.int64]
    code: NDArray[np.int64]
    count: NDArray[np.int64]

    @classmethod
    def drawn(cls, p: Floats, size: int, samples: int, rng: np.random.Generator) -> Pool:
        """Draw the samples by Pólya's urn: each vector is fresh, or repeats an earlier one of its sample."""
        chosen = rng.choice(len(p), (samples, size), p=p)
        for i in range(1, size):
            repeats = np.flatnonzero(rng.random(samples) >= CONCENTRATION / (CONCENTRATION + i))
            chosen[repeats, i] = chosen[repeats, rng.integers(0, i, repeats.size)]
        cell, count = np.unique(chosen + np.arange(samples)[:, None] * len(p), return_counts=True)
        start = np.searchsorted(cell, np.arange(samples + 1) * len(p))
        return cls(len(p), size, start, cell % len(p), count)

    @property
    def perplexity(self) -> float:
        return perplexity(np.bincount(self.code, weights=self.count, minlength=self.codes))

    def draw(self, samples: int, rng: np.random.Generator) -> GroupedCounts:
        """Return samples drawn with replacement."""
        taken = rng.integers(0, len(self.start) - 1, samples)
        lengths = self.start[taken + 1] - self.start[taken]
        first = np.repeat(self.start[taken] - np.cumsum(lengths) + lengths, lengths)
        entries = first + np.arange(lengths.sum())
        return GroupedCounts(
            num_codes=self.codes,
            num_groups=samples,
            samples=samples,
            group=np.repeat(np.arange(samples), lengths),
            code=self.code[entries],
            count=self.count[entries],
        )


def independent(p: Floats, vectors: int, rng: np.random.Generator) -> GroupedCounts:
    """Return vectors drawn from `p`, each a sample of its own."""
    counts = rng.multinomial(vectors, p)
    return GroupedCounts(
        num_codes=len(p),
        num_groups=vectors,
        samples=vectors,
        group=np.arange(vectors),
        code=np.repeat(np.arange(len(p)), counts),
        count=np.ones(vectors, dtype=np.int64),
    )


def perplexity(counts: Floats) -> float:
    return float(np.exp(plug_in_entropy(counts)))


def estimates(
    usage: str, codes: int, size: int, rng: np.random.Generator
) -> Iterator[tuple[int, float, list[Perplexity]]]:
    """Yield vectors per code, the true perplexity and the estimates of all draws of one usage."""
    p = usage_of(usage, codes, rng)
    share = DRAWS // len(USAGES)
    pool = None
    if size > 1:
        samples = max(POOL, 3 * codes * RATIOS[-1]) // size
        pool = Pool.drawn(p, size, max(200, samples), rng)
    truth = pool.perplexity if pool else perplexity(p)
    for ratio in RATIOS:
        vectors = codes * ratio
        if vectors < 2 * size:
            continue  # one sample says nothing of others: the gate gives no verdict
        draw = [
            estimate(pool.draw(vectors // size, rng) if pool else independent(p, vectors, rng), seed)
            for seed in range(share)
        ]
        yield ratio, truth, draw


def verdict(found: Perplexity, codes: int, vectors: int, samples: int, threshold: float) -> str:
    """What the gate says, by its own policy."""
    usage = a_usage(
        found.value,
        perplexity_low=found.low,
        perplexity_high=found.high,
        num_codes=codes,
        sample_size=vectors,
        effective_size=found.effective_size,
        groups=samples,
    )
    rules = GateRules(assertions=(parse_assertion(f"perplexity>={threshold}", "--require"),))
    (held,) = hold(a_report(usage), Policy(rules=rules))
    return held.judgement.status


@dataclass
class Cell:
    """What became of the draws of one cell, by usage."""

    given: dict[str, float]
    wrong: dict[str, float]

    @property
    def verdicts(self) -> float:
        return float(np.mean(list(self.given.values())))

    @property
    def errors(self) -> float:
        """Wrong verdicts, as a share of those that were given."""
        return float(np.sum(list(self.wrong.values())) / max(1e-9, np.sum(list(self.given.values()))))

    def wrong_of(self, usage: str) -> float:
        """Wrong verdicts on one usage, as a share of those that were given on it."""
        return self.wrong[usage] / max(1e-9, self.given[usage])


def test_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    cells: dict[tuple[int, int, int], Cell] = {}
    for codes in CODES:
        for size in SIZES:
            for usage in USAGES:
                for ratio, truth, found in estimates(usage, codes, size, rng):
                    cell = cells.setdefault((codes, size, ratio), Cell({}, {}))
                    sizes = codes, codes * ratio, codes * ratio // size
                    below = [verdict(f, *sizes, truth / 1.05) for f in found]
                    above = [verdict(f, *sizes, truth / 0.95) for f in found]
                    both = below + above
                    cell.given[usage] = float(np.mean([v != "inconclusive" for v in both]))
                    cell.wrong[usage] = (below.count("fail") + above.count("pass")) / len(both)
    with capsys.disabled():
        print(f"\n{DRAWS} draws a cell, a quarter of each usage; verdicts given, and wrong ones of them")
        for (codes, size, ratio), cell in cells.items():
            each = "  ".join(f"{name} {cell.given[name]:.0%}, {cell.wrong_of(name):.1%}" for name in USAGES)
            print(
                f"K {codes:5}, {size:4} a sample, N/K {ratio:2}: given {cell.verdicts:4.0%}, "
                f"wrong {cell.errors:.2%}   ({each})"
            )
    assert max(cell.errors for cell in cells.values()) <= 0.025
    for (_, size, ratio), cell in cells.items():
        if size == 1 and ratio >= 64:
            assert cell.verdicts >= 0.95
        elif size == 1 and ratio >= 16:
            assert cell.verdicts >= 0.5
