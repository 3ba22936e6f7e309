"""The model uses only a handful of its codes.

## Why it matters
Perplexity is the number of codes that would, used evenly, carry as much information. A perplexity of
1 means that every input becomes the same code: the codes say nothing, and whatever the model still
does, it does without them.

## How to read it
The limit is max(min(50, 0.2 K), 0.05 K) codes: 50 for K = 256 to 1,000, 5 % of K above. Perplexity
is the exponential of the entropy, estimated with Grassberger's correction; the plain estimate is
43 % too low at one vector per code. Where even the upper end of its 95 % interval is under the limit
it is an error; where only the estimate is, a warning. With fewer independent vectors than codes
little can be said; then only what even a perfect codebook would clearly exceed counts. The perplexity
of one batch is not that of the data set: give as many vectors as you have, 16 per code or more. Odd
data collapses a healthy codebook too: a modem tone uses 8 of the 512 codes of a speech codec.

## Remedy
Where the report names a cause, mend that. Otherwise data-init, then revive-dead-codes.

## References
- Grassberger 2003, Entropy Estimates from Insufficient Samplings, arXiv:physics/0307138
- Dhariwal et al. 2020, Jukebox, arXiv:2005.00341: random restarts
- Huh et al. 2023, Straightening Out the Straight-Through Estimator, arXiv:2305.08842
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vqdoctor.checks import _usage
from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._specimens import COLLAPSED_USAGE, EMA_USAGE, USAGE
from vqdoctor.checks._words import figure
from vqdoctor.core.check import CannotJudge, Check, Example, limit
from vqdoctor.core.evidence import Usage
from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Confidence, Severity


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The least perplexity, max(min(codes, share K), floor K), and the least sample."""

    codes: float = limit(
        _usage.CODES,
        "Perplexity that is enough for a codebook of medium size. Healthy digit models measured 110 to "
        "235 of 256, a deployed speech codec 185 of 512; collapses measured 1 to 27.",
    )
    share: float = limit(
        _usage.SHARE,
        "Share of K that is enough for a small codebook, where `codes` would ask for too much.",
    )
    floor: float = limit(
        _usage.FLOOR,
        "Share of K that a large codebook must reach, where `codes` would ask for too little.",
    )
    vectors_per_code: float = limit(
        1.0,
        "Independent vectors per code from which the estimate is held against the limit as it is. At one "
        "vector per code it is at most 12 % too low.",
    )


def evaluate(usage: Usage, limits: Limits) -> Iterator[Problem]:
    """Hold the perplexity's interval against the limit, as far as the sample can tell."""
    k = usage.num_codes
    bar = _usage.least_perplexity(k, limits.codes, limits.share, limits.floor)
    if usage.perplexity >= bar:
        return  # small samples only ever make the estimate too low
    vectors = _usage.effective_vectors(usage)
    if vectors < limits.vectors_per_code * k:
        bar *= _usage.uniform_used(k, vectors) / k  # what even uniform usage would lose to the sample
        if usage.perplexity_high >= bar:
            raise CannotJudge(
                f"{vectors:,.0f} independent vectors are too few for {k:,} codes: give {_usage.PLENTY * k:,}"
            )
    certain = usage.perplexity_high < bar
    yield Problem(
        message=f"{_sentence(usage, certain)}, where at least {figure(bar)} are expected.",
        severity=Severity.ERROR if certain else Severity.WARNING,
        confidence=Confidence.HIGH if usage.source == "batch" and certain else Confidence.MEDIUM,
        measurements=(
            Measurement(name="perplexity", value=usage.perplexity, limit=bar, unit="codes"),
            Measurement(name="perplexity_high", value=usage.perplexity_high, unit="codes"),
            Measurement(name="used", value=usage.used, unit="codes"),
        ),
        decide_with="" if usage.source == "batch" else "--data batch.npz",
    )


def _sentence(usage: Usage, certain: bool) -> str:
    amount = f"The model uses the equivalent of {figure(usage.perplexity)} of its {usage.num_codes:,} codes"
    doubt = "" if certain else f", {figure(usage.perplexity_high)} at best"
    return f"{amount} (perplexity{doubt})"


CHECK = Check(
    code="VQ501",
    name="codebook-collapse",
    title="The model uses only a handful of its codes.",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("data-init", "revive-dead-codes"),
    explained_by=COLLAPSE,
    meaningless_after=("VQ306",),
    examples=(
        Example(title="every vector on one code", evidence=(COLLAPSED_USAGE,), fires=True),
        Example(
            title="one code in the EMA counts of a bare file",
            evidence=(
                EMA_USAGE.replace(
                    used=256,
                    active=1,
                    perplexity=1.01,
                    perplexity_low=1.01,
                    perplexity_high=1.01,
                    max_share=0.998,
                ),
            ),
            fires=True,
        ),
        Example(
            title="one code, on a sample so small that even usage could show 57 codes at most",
            evidence=(
                COLLAPSED_USAGE.replace(sample_size=64, groups=4, effective_size=64.0, expected_used=57.0),
            ),
            fires=True,
        ),
        Example(title="healthy", evidence=(USAGE,), fires=False),
        Example(
            title="a deployed speech codec, perplexity 0.36 K",
            evidence=(
                USAGE.replace(
                    num_codes=512,
                    sample_size=5_767,
                    used=431,
                    active=402,
                    expected_used=512.0,
                    expected_active=512.0,
                    share=0.84,
                    perplexity=185.0,
                    perplexity_low=178.0,
                    perplexity_high=192.0,
                    plug_in_perplexity=178.0,
                    max_share=0.043,
                    groups=1,
                    effective_size=5_767.0,
                ),
            ),
            fires=False,
        ),
    ),
    doc=__doc__,
)
