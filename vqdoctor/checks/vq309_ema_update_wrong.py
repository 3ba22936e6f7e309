"""The EMA writes codes that are not the means of their vectors.

## Why it matters
An EMA codebook is sound where each code is its sum over its smoothed count. A rule that loses a factor writes
codes on another scale than z_e: all vectors then choose the same few codes, the VQ loss explodes with the
square of the factor, and the counts, which follow the choice, may still look well used. Neither a
straight-through estimator, nor a small VQ weight, a warm-up or a revival makes up for it.

## How to read it
Over all codes that are in use, E is compared with S/c. Where every code is its mean times one factor, the
rule has lost or doubled that factor; a factor equal to the sum of the counts (the vectors of a batch) is the
normaliser of the Laplace smoothing: n in (c + eps) n / (n + K eps). Where E is S itself, nothing divides by
the counts. Sums over the mean of the counts, over a count plus one, over whole numbers (the counts of one
batch instead of the EMA's), or times their counts are told in the same way. All are exact, so a file alone
proves them. Where a model runs, a copy shows the same right after the layer's own updates in training, and
whether each code then is the mean of that one batch alone. The same pass shows the weights with which its
vectors enter the sums and their number enters the counts, which have to be equal, and what share of both
it keeps, which has to be equal too. Counts that are stored as shares agree with the codes whatever the rule;
there the codes are compared with the vectors that choose them. Codes that somebody moved differ one by one
(VQ303, VQ505), and codes on a sphere have one length (VQ310). Smoothing matters only for codes with counts
near zero, which are not compared.

## Remedy
sound-ema-rule: the two lines of the published update. Retrain afterwards: the encoder was trained to
follow codes of a wrong length. A retraining with sound-ema overwrites the layer's own update.

## References
- van den Oord et al. 2017, Neural Discrete Representation Learning, arXiv:1711.00937, appendix A.1
- zalandoresearch/pytorch-vq-vae: (c + eps) / (n + K eps) * n
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.checks import _scale
from vqdoctor.checks._words import figure, measured, percent, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import EmaAdvances, EmaRelation, LookupScale, TrainForward
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Severity

PULLED = ("VQ201",)
"""Found where the codes are far longer than z_e: the VQ loss is their distance, so it pulls hard."""


class Limits(CheckLimits):
    """When a relation counts as exact, and as wrong."""

    scale_spread: float = limit(
        _scale.EXACT,
        "Largest spread of |E| / |S/c| over the codes that counts as one factor. Smoothing and float32 "
        "explain 0.001, bfloat16 0.008; a trained layer that lost its normaliser measured 7e-9.",
    )
    scale: float = limit(
        _scale.OFF,
        "Least difference of that factor from 1. Sound layers measured up to 7e-5; a smoothing of 1e-5 with "
        "16,384 codes and 16 vectors per batch explains 0.01.",
    )
    too_long: float = limit(
        _scale.TOO_LONG,
        "Least factor by which codes are longer than the vectors that choose them, where the counts add up "
        "to one. Sound layers measured 0.9 to 1.1; storing counts without their sum gave 443.",
    )
    weights: float = limit(
        _scale.OFF,
        "Least difference from 1 of the weight of new vectors in the sums over that of their number in the "
        "counts. Both are 1 less the decay, so that only rounding is left, 0.0001.",
    )
    forgets: float = limit(
        0.5,
        "Least difference of what one pass takes from the sums and from the counts, as a share of the "
        "larger. Both are 1 less the decay; counts that were never decayed measured 1.0, sound layers 1e-5.",
    )
    kept: float = limit(
        0.0005,
        "Least difference of the share of the sums and of the counts that one pass keeps. Counts that are "
        "smoothed as they are stored lose K eps / n more: 0.0003 with 8,192 codes, 1e-5 and 256 vectors.",
    )
    batch_means: float = limit(
        0.9,
        "Least share of the chosen codes that are the mean of one batch. An EMA with decay d keeps d of each "
        "code, so sound layers measured 0; codes overwritten by batch means measured 1.",
    )


def evaluate(
    relation: EmaRelation | None,
    lookup: LookupScale | None,
    forward: TrainForward | None,
    advances: EmaAdvances | None,
    limits: Limits,
) -> Iterator[Problem]:
    """Ask whether the codes remember older batches; whether both EMAs learn alike; then for their means."""
    ratio = None if advances is None else advances.sums_over_counts
    means = None if forward is None else forward.batch_means
    if means is not None and means >= limits.batch_means:
        yield problem(
            Severity.WARNING,
            f"After a training pass {percent(means)} of the codes that it chose are the means of that batch "
            "alone: the update overwrites the codes, and averages over no earlier batch.",
            measured("batch_means", means, limits.batch_means),
        )
    elif ratio is not None and abs(ratio - 1) > limits.weights:
        yield problem(
            Severity.ERROR,
            f"A training pass adds its vectors to the EMA sums with {figure(ratio)} times the weight with "
            "which it adds their number to the counts, so the codes become as many times as long as their "
            "vectors.",
            measured("sums_over_counts", ratio, 1 + limits.weights),
        )
    elif relation is not None and advances is not None and _forget_unlike(relation, advances, limits):
        sums, counts = advances.sums_kept or 0.0, advances.counts_kept or 0.0
        yield problem(
            Severity.ERROR,
            f"A training pass keeps {figure(sums)} of the EMA sums and {figure(counts)} of the counts, so "
            f"the codes, their ratio, become {'shorter' if sums < counts else 'longer'} with every pass.",
            measured("sums_kept", sums),
            measured("counts_kept", counts),
            measured("difference", abs(sums - counts), limits.kept),
        )
    elif relation is not None:
        yield from _related(relation, lookup, limits)
    elif forward is None and advances is None:
        raise CannotJudge("the layer stores no EMA sums that were ever written, and no model was run")


def _forget_unlike(relation: EmaRelation, advances: EmaAdvances, limits: Limits) -> bool:
    """Whether codes that are sums over counts have sums and counts of two memories."""
    sums, counts = advances.sums_kept, advances.counts_kept
    off = abs(relation.scale - 1) > limits.scale or relation.scale_spread > limits.scale_spread
    if sums is None or counts is None or off:
        return False
    return abs(sums - counts) > max(limits.kept, limits.forgets * max(1 - sums, 1 - counts))


def _related(relation: EmaRelation, lookup: LookupScale | None, limits: Limits) -> Iterator[Problem]:
    """Ask whether nothing was divided; then what was divided by; then whether one factor is left over."""
    times = measured("scale", relation.scale, 1 + limits.scale)
    beside = (
        times,
        measured("scale_spread", relation.scale_spread, limits.scale_spread),
        measured("code_norm", relation.code_norm),
        measured("mean_norm", relation.mean_norm),
    )
    if _scale.undivided(relation, limits.scale_spread):
        yield problem(
            Severity.ERROR,
            f"The {relation.sample_size:,} codes in use are their EMA sums themselves: the update does not "
            f"divide the sums by the counts, so a code grows with its use.",
            beside[1],
            measured("sum_scale", relation.sum_scale),
            measured("count_power", relation.count_power),
            *beside[2:],
        )
    elif _scale.other_divisor(relation):
        yield problem(
            Severity.ERROR,
            f"The {relation.sample_size:,} codes in use are not their EMA sums over their counts: "
            f"{_divisor(relation)}.",
            measured("count_power", relation.count_power),
            *beside,
        )
    elif _scale.one_factor(relation, limits.scale_spread, limits.scale):
        yield problem(Severity.ERROR, _factor(relation, limits.scale_spread), *beside)
    elif lookup is not None and _scale.shares_of_sums(relation, lookup, limits.too_long):
        yield problem(
            Severity.ERROR,
            f"The EMA counts add up to {figure(relation.total)} and the codes are "
            f"{figure(1 / lookup.factor)} times as long as the vectors that choose them: the update "
            "normalises the counts, and does not multiply by their sum again.",
            measured("times_too_long", 1 / lookup.factor, limits.too_long),
            measured("total", relation.total),
            measured("code_norm", lookup.code_norm),
            measured("vector_norm", lookup.vector_norm),
            explains=PULLED,
        )


def _divisor(relation: EmaRelation) -> str:
    return {
        "mean": "the update divides all of them by the mean of the counts, so a code grows with its use",
        "constant": f"they are the sums times {figure(relation.sum_scale)}, so a code grows with its use",
        "inverse": "they are the sums times the counts, where the update should divide by them",
        "added": f"the update divides by the count plus {figure(relation.added)}, so a code shrinks the less "
        "it is chosen",
        "whole": "the sums are divided by whole numbers, as one batch's counts plus one are, so each batch "
        "gives a code another length",
    }[relation.divisor]


def _factor(relation: EmaRelation, exact: float) -> str:
    codes = f"{relation.sample_size:,} codes in use" if relation.sample_size > 1 else "The code in use"
    several = relation.sample_size > 1
    subject, whose = (f"All {codes} are", "their") if several else (f"{codes} is", "its")
    if _scale.lost_total(relation, exact):
        return (
            f"{subject} {figure(relation.scale)} times as long as the mean of {whose} vectors, which is the "
            f"sum of "
            "the EMA counts: the update normalises the counts and does not multiply by their sum again."
        )
    if _scale.total_twice(relation, exact):
        return (
            f"{subject} {figure(1 / relation.scale)} times shorter than the mean of {whose} vectors, which "
            f"is the sum of the EMA counts: the update multiplies by it twice."
        )
    return (
        f"{subject} {figure(relation.scale)} times as long as the mean of {whose} vectors: the update has a "
        f"factor too many or too few."
    )


CHECK = Check(
    code="VQ309",
    name="ema-update-wrong",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("sound-ema",),
    advice=Advice(
        name="sound-ema-rule",
        how="Divide the sums by the smoothed counts, whose sum is that of the counts, and train again.",
        code="n = counts.sum()\n"
        "smoothed = (counts + eps) * n / (n + num_codes * eps)\n"
        "codebook.copy_(sums / smoothed[:, None])",
        names=("codebook", "counts", "sums"),
    ),
    explained_by=("VQ901",),
    examples=(
        fires(
            "the normaliser is lost: every code is as many times too long as a batch has vectors",
            EmaRelation.healthy(
                scale=400.0, scale_spread=7e-9, code_norm=8_400.0, code_norm_spread=0.13, sum_scale=272.0
            ),
        ),
        fires(
            "a collapsed codebook with one code in use",
            EmaRelation.healthy(
                sample_size=1,
                scale=400.0,
                scale_spread=0.0,
                code_norm=400.0,
                code_norm_spread=0.0,
                mean_norm=1.0,
            ),
        ),
        fires("the normaliser is applied twice", EmaRelation.healthy(scale=1 / 400, code_norm=0.0525)),
        fires("another factor", EmaRelation.healthy(scale=1.5, code_norm=31.5)),
        fires(
            "nothing divides by the counts",
            EmaRelation.healthy(scale=1.6, scale_spread=1.1, count_power=1.0, sum_scale=1.0, code_norm=33.0),
        ),
        fires(
            "all divided by the mean of the counts",
            EmaRelation.healthy(scale=0.9, scale_spread=0.9, count_power=1.0, divisor="mean"),
        ),
        fires(
            "divided by the last batch's counts plus one",
            EmaRelation.healthy(scale=0.8, scale_spread=0.6, divisor="whole"),
        ),
        fires(
            "divided by the counts plus one",
            EmaRelation.healthy(scale=0.75, scale_spread=0.2, divisor="added", added=1.0),
        ),
        fires(
            "multiplied by the counts",
            EmaRelation.healthy(scale=0.03, scale_spread=1.9, count_power=2.0, divisor="inverse"),
        ),
        fires(
            "the counts are stored as shares, and the sums are not",
            EmaRelation.healthy(total=1.0, code_norm=364.0, mean_norm=364.0),
            LookupScale.healthy(code_norm=364.0, vector_norm=3.6, factor=0.0023),
        ),
        passes(
            "counts and sums are both stored as shares",
            EmaRelation.healthy(total=1.0),
            LookupScale.healthy(),
        ),
        fires("codes overwritten by the means of each batch", TrainForward.healthy(batch_means=1.0)),
        fires("sums that weigh new vectors by the decay itself", EmaAdvances.healthy(sums_over_counts=99.0)),
        fires(
            "counts that are never decayed, beside sums that are",
            EmaRelation.healthy(),
            EmaAdvances.healthy(sums_kept=0.95, counts_kept=1.0),
        ),
        passes(
            "the same, where the codes are not the sums over these counts",
            EmaRelation.healthy(scale=1.4, scale_spread=0.6, cosine=0.2),
            EmaAdvances.healthy(sums_kept=0.95, counts_kept=1.0),
        ),
        passes("sums and counts that learn alike", EmaRelation.healthy(), EmaAdvances.healthy()),
        passes("a sound EMA", EmaRelation.healthy()),
        passes("a sound EMA at work", EmaRelation.healthy(), TrainForward.healthy(batch_means=0.0)),
        passes(
            "a large smoothing that hardly moves a code",
            EmaRelation.healthy(scale=0.95, scale_spread=0.03, divisor="added", added=0.1),
        ),
        passes("rounded to bfloat16", EmaRelation.healthy(scale=1.002, scale_spread=0.008, cosine=0.9999)),
        passes(
            "codes on a sphere and means of another length",
            EmaRelation.healthy(
                scale=0.2, scale_spread=0.01, code_norm=1.0, code_norm_spread=5e-8, mean_norm=4.9
            ),
        ),
        passes("codes that were moved", EmaRelation.healthy(scale=1.4, scale_spread=0.6, cosine=0.2)),
    ),
    doc=__doc__,
)
