"""A batch is too small for the count under which codes are replaced.

## Why it matters
A layer that replaces codes whose EMA count is under a fixed number, such as 2, needs that many vectors
per code in a batch. With fewer the average count is under the threshold whatever the codes are, so most
of the codebook is replaced at every step, for as long as training lasts. Usage looks perfect all the
while: the codes are new each time. No index means the same thing for long.

## How to read it
Vectors per batch over K, against the threshold. Where no threshold is known, the codes that a single
train-mode pass moves far, over the most that it could replace, min(K, vectors). Measured on digits
(K from 64 to 1,024, threshold 2, decay 0.8 and 0.99): with 0.05 to 0.8 vectors per code 0.85 to 0.98
of that number is replaced in each pass, with 2 per code 0.15 to 0.3, with 4 at most 0.03. A threshold of a
tenth of the mean count replaced at most 0.02 with 0.8 vectors per code and more, but 0.67 to 0.98 with 0.2
and less at decay 0.8, which remembers nine batches: less than two choices per code. In a bare file the
sign is codes whose count is not above the threshold: a revival leaves the number itself behind. Where no
codes are replaced the batch size alone is not judged: from 0.05 to 4 vectors per code it did not change
the perplexity of a plain EMA.

Where all but a few codes are dead, as behind an encoder that gives one output for everything, a revival
replaces them rightly, and the batch is judged by the threshold alone.

With several processes that share their counts, a batch is all of theirs.

A code lives for as many steps as it takes to replace all K. Where that is less than the steps that an average
needs, a code is one vector of the data and was never the mean of its own: then it is an error.

## Remedy
The sum of the EMA counts is the number of vectors in a batch, so the mean count is vectors over K, and
it changes with the batch, the crop and the codebook. A tenth of it finds the codes that are hardly
used, and never all of them. More vectors per batch (a longer crop, more processes that share their
counts) or a slower decay help too: over the window of the EMA, (1 + d)/(1 - d) batches, every code
should be due several times.

## References
- jishengpeng/WavTokenizer#82: 1,200 vectors per batch, K = 4,096, threshold 2
- kyutai-labs/moshi: `threshold_usage_ratio` 0.1, relative to uniform usage
"""

from collections.abc import Iterator

from vqdoctor.checks import _usage
from vqdoctor.checks._renewed import RUNAWAY
from vqdoctor.checks._words import figure, if_known, measured, percent, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodeExpiry, Usage
from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """When replacement counts as running away."""

    per_threshold: float = limit(
        1.0,
        "Least vectors per code in a batch, in units of the threshold. Under one the mean count is below the "
        "threshold, so not all codes can stay, however evenly they are chosen.",
    )
    expired: float = limit(
        0.5,
        "Largest share of the codes whose count is not above the threshold. With twice as many vectors as "
        "the threshold asks for it measured up to 0.08, with as many up to 0.45, with fewer 0.91 and more.",
    )
    replaced: float = limit(
        RUNAWAY,
        "Largest share of min(K, vectors) that one pass may replace. Runaway replacement measured 0.67 and "
        "more, a rule that replaces all codes under the mean count 0.44. With as many vectors as the "
        "threshold asks for it was up to 0.3.",
    )
    lifetime: float = limit(
        10.0,
        "Least steps for which a code lives on average, where a runaway replacement was measured. It is half "
        "the memory of an EMA with decay 0.95, the usual fast one: no code lives to be a mean.",
    )


def evaluate(expiry: CodeExpiry, usage: Usage | None, limits: Limits) -> Iterator[Problem]:
    """Compare the batch with the threshold, or else the replacements with the batch."""
    if expiry.threshold is None and expiry.replaced is None:
        raise CannotJudge("the file does not record whether, and under which count, codes are replaced")
    broken = list(_broken(expiry, limits))
    if broken and broken[0].name != "per_threshold" and usage is not None and _usage.few(usage):
        raise CannotJudge("codes are replaced, but so few are chosen that most are dead, whatever the batch")
    if broken:
        rule, effect = "Every training step replaces codes", ""
        if expiry.threshold is not None:
            rule = f"Codes with a count under {figure(expiry.threshold)} are replaced"
        if expiry.replaced is not None:
            effect = f", so each step replaces {percent(expiry.replaced)} of all that it can"
        elif expiry.expired is not None:
            effect = f", so {percent(expiry.expired)} of them are due at any time"
        live = expiry.source == "batch"
        ours = expiry.assumed_batch_size is not None
        whose = f" of {expiry.assumed_batch_size} samples, which is our guess," if ours else ""
        batch = (
            f"a batch{whose} has {figure(expiry.vectors)} vectors for {expiry.sample_size:,} codes{effect}"
        )
        if expiry.expired == 1 and not live:  # the counts are the threshold's, and say nothing of the batch
            batch = f"each of the {expiry.sample_size:,} codes has just that count: all are due"
        lifetime = _lifetime(expiry)
        runs_away = (expiry.replaced or 0.0) > limits.replaced
        brief = runs_away and lifetime is not None and lifetime < limits.lifetime
        lives = f": a code lives for {figure(lifetime)} steps" if lifetime is not None and brief else ""
        yield problem(
            Severity.ERROR if brief else Severity.WARNING,
            f"{rule}, but {batch}{lives}.",
            *broken,
            if_known("lifetime", lifetime, limits.lifetime, unit="steps"),
            confidence=Confidence.HIGH if live and not ours else Confidence.MEDIUM,
            decide_with="" if live and not ours else "--task FILE.py:NAME" if live else "--data batch.npz",
        )


def _broken(expiry: CodeExpiry, limits: Limits) -> Iterator[Measurement]:
    if expiry.threshold is not None:
        per_threshold = expiry.vectors / expiry.sample_size / expiry.threshold
        if per_threshold < limits.per_threshold:
            yield measured("per_threshold", per_threshold, limits.per_threshold)
    if expiry.expired is not None and expiry.expired > limits.expired:
        yield measured("expired", expiry.expired, limits.expired)
    if expiry.replaced is not None and expiry.replaced > limits.replaced:
        yield measured("replaced", expiry.replaced, limits.replaced)


def _lifetime(expiry: CodeExpiry) -> float | None:
    """Return the mean life of a code, in steps; None where no replacement was measured."""
    if not expiry.replaced:
        return None
    return expiry.sample_size / (expiry.replaced * min(expiry.sample_size, expiry.vectors))


CHECK = Check(
    code="VQ402",
    name="batch-too-small",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="relative-threshold",
        how="Replace codes whose EMA count is under a tenth of the mean count, not under a fixed number.",
        code="threshold = 0.1 * vectors_per_batch / num_codes   # of the EMA counts",
        setting=("dead codes", "0.1 * vectors_per_batch / num_codes"),
    ),
    examples=(
        fires(
            "1,200 vectors, K = 4,096, threshold 2",
            CodeExpiry.healthy(sample_size=4096, vectors=1200.0, threshold=2.0, replaced=0.95),
        ),
        fires("replacement by a rule that is not known", CodeExpiry.healthy(replaced=0.91)),
        fires(
            "a bare file with the threshold in most counts",
            CodeExpiry.healthy(
                source="checkpoint", vectors=540.0, threshold=2.0, expired=0.97, replaced=None
            ),
        ),
        passes("400 vectors for 256 codes, no fixed threshold", CodeExpiry.healthy()),
        passes("100 vectors for 1,024 codes, kept", CodeExpiry.healthy(sample_size=1024, vectors=100.0)),
        passes(
            "four per code", CodeExpiry.healthy(vectors=1024.0, threshold=2.0, expired=0.04, replaced=0.04)
        ),
    ),
    doc=__doc__,
)
