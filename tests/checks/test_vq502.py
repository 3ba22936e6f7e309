"""VQ502 dead-codes just inside and just outside its limits."""

from __future__ import annotations

import random

import pytest
from judged import problems, says, usage

from vqdoctor.checks._usage import IMPLICIT_USAGE
from vqdoctor.core.check import CannotJudge
from vqdoctor.core.evidence import Evidence


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([IMPLICIT_USAGE.replace(active=2)], "cannot judge"),
        ([usage(1024, 40_000, 300, 420)], "passes"),
        ([usage(1024, 40_000, 250, 400)], "warning"),
        ([usage(1024, 40_000, 200, 300)], "error"),
        ([usage(1024, 28_752, 150, 280)], "error"),
        ([usage(1024, 2_000, 250, 300)], "cannot judge"),
        ([usage(512, 64, 45, 50)], "passes"),
        ([usage(512, 64, 1, 1)], "error"),
        ([usage(512, 5_767, 185, 431)], "passes"),
        ([usage(1024, 40_000, 200, 300, effective_size=3_000.0)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ502", *evidence) == expected


def test_too_few_vectors_says_how_many_are_needed() -> None:
    with pytest.raises(CannotJudge, match=r"give 30,720$"):
        problems("VQ502", usage(1024, 2_000, 250, 300))


def test_dead_codes_of_a_uniform_codebook_are_never_claimed_from_a_small_sample() -> None:
    """Independent of the check's formula: sizes from far too few to plenty, on simulated even usage."""
    rng = random.Random(0)
    for n in (20, 64, 256, 1_024, 4_096, 16_384):
        counts: dict[int, int] = {}
        for _ in range(n):
            code = rng.randrange(256)
            counts[code] = counts.get(code, 0) + 1
        active = sum(count > 0.1 * n / 256 for count in counts.values())
        assert says("VQ502", usage(256, n, len(counts), len(counts), active=active)) == "passes"


@pytest.mark.parametrize("n", [64, 256, 1_024, 4_096, 16_384])
def test_half_dead_is_a_pass_or_undecided_and_nine_tenths_dead_never_a_pass(n: int) -> None:
    rng = random.Random(1)
    for alive, allowed in ((128, {"passes", "cannot judge"}), (24, {"error", "cannot judge"})):
        codes = [rng.randrange(alive) for _ in range(n)]
        used = len(set(codes))
        assert says("VQ502", usage(256, n, used, used)) in allowed, (alive, used)
