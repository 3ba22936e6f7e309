"""The model uses only a handful of its codes.

## Why it matters
Perplexity is the number of codes that would, used evenly, carry as much information. A perplexity of
1 means that every input becomes the same code: the codes carry no information, and the model works
without them.

## How to read it
The limit is max(min(50, 0.2 K), 0.05 K) codes: 50 for K = 256 to 1,000, 5 % of K above. Perplexity
is the exponential of the entropy, estimated with Grassberger's correction; the plain estimate is
43 % too low at one vector per code. Where even the upper end of its 95 % interval is under the limit
it is an error; where only the estimate is, a warning. So it is where half of the limit is reached and z_e in
place of z_q does the task no better. With fewer independent vectors than codes
little can be said; then only what even a perfect codebook would clearly exceed counts. The perplexity
of one batch is not that of the data set: give as many vectors as you have, 16 per code or more. Odd
data collapses a healthy codebook too: a modem tone uses 8 of the 512 codes of a speech codec.

FSQ, LFQ and BSQ store no codebook: a code is a combination of levels, one that is never used costs
nothing, and none can be initialised or revived. The possible fault is the size of z_e. Far too large, and
every channel is at its lowest or highest level, where its tanh passes no gradient either; far too
small, and every channel stays at one. So the limit is not 5 % of K but half of the bits, the square root
of K, which channels of 4 levels and more miss as soon as they use their two ends alone.

A pure classifier, whose task loss is a cross-entropy and no more, needs about as many codes as classes, and
its loss rewards no others. Where its perplexity is near the number of classes, and its accuracy as good as
with z_e in place of z_q, no code has died for want of training: a note. A decoder asks for 50 to 200, but of
data with a handful of modes it needs no more codes than these: where next to nothing of its loss is left, and
z_e in place of z_q leaves no less, it is a note too.

## Remedy
Where the report names a cause, fix that. Otherwise data-init, then revive-dead-codes. Without a
codebook: normalise-before-vq, so that z_e spans the levels; for LFQ and BSQ first raise-vq-weight,
because their entropy loss keeps the codes in use. Behind a pure classifier: fewer-codes, or a decoder.

## References
- Grassberger 2003, Entropy Estimates from Insufficient Samplings, arXiv:physics/0307138
- Dhariwal et al. 2020, Jukebox, arXiv:2005.00341: random restarts
- Huh et al. 2023, Straightening Out the Straight-Through Estimator, arXiv:2305.08842
- Mentzer et al. 2023, Finite Scalar Quantization, arXiv:2309.15505; Yu et al. 2023 (LFQ), arXiv:2310.05737
"""

from collections.abc import Iterator

from vqdoctor.checks import _harm, _levels, _usage
from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._usage import COLLAPSED_USAGE, EMA_USAGE, IMPLICIT_USAGE
from vqdoctor.checks._words import figure, if_known, measured, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import ImplicitLevels, TaskMetrics, Usage
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity

WITH_CODEBOOK = ("data-init", "revive-dead-codes")
WITHOUT_CODEBOOK = ("normalise-before-vq",)
OF_BITS = ("raise-vq-weight", "normalise-before-vq")


class Limits(CheckLimits):
    """The least perplexity, max(min(codes, share K), floor K), and the least sample."""

    codes: float = limit(
        _usage.CODES,
        "Perplexity that is enough for a codebook of medium size. Healthy digit models measured 110 to "
        "235 of 256, a deployed speech codec 185 of 512; collapses measured 1 to 27.",
    )
    share: float = limit(
        _usage.SHARE, "Share of K that is enough for a small codebook, where `codes` would ask for too much."
    )
    floor: float = limit(
        _usage.FLOOR, "Share of K that a large codebook must reach, where `codes` would ask for too little."
    )
    vectors_per_code: float = limit(
        1.0,
        "Independent vectors per code from which the estimate is compared with the limit as it is. At one "
        "vector per code it is at most 12 % too low.",
    )
    nearly: float = limit(
        0.5,
        "Share of the least perplexity from which usage that costs the task nothing is a warning. Two sound "
        "models, of small pictures and of motion, measured 0.73 and 0.91, on which it was set. Of 95 "
        "collapses whose cause is known most were under it; the others have an error for their cause.",
    )
    bits: float = limit(
        _usage.BITS,
        "Share of its bits that a layer without a codebook must use, in place of `floor`. On 8x8 digits "
        "trained FSQ and LFQ layers of 125 to 64,000 codes used 0.58 to 0.99 of theirs; channels of 4 "
        "levels and more that use only their two ends have at most 0.5.",
    )
    edge_share: float = limit(
        _levels.EDGE_SHARE,
        "Share of the codes at the ends of a channel from which it counts as saturated (of many levels, as "
        "VQ317), where the use of the codes is poor. Trained channels measured 0.01 to 0.52, saturated ones "
        "0.99 and 1.",
    )


def evaluate(
    usage: Usage, levels: ImplicitLevels | None, task: TaskMetrics | None, limits: Limits
) -> Iterator[Problem]:
    """Compare the perplexity's interval with the limit, as far as the sample allows."""
    k = usage.num_codes
    bits = limits.bits if usage.implicit else None
    bar = _usage.least_perplexity(k, limits.codes, limits.share, limits.floor, bits=bits)
    if usage.perplexity >= bar and usage.at_least:
        raise CannotJudge(f"how many codes the layer has is unknown, only that it has {k:,} or more")
    if usage.perplexity >= bar or _usage.one_stands_out(usage):
        return  # small samples only ever make the estimate too low; one code far above the rest is VQ511
    vectors = _usage.effective_vectors(usage)
    if vectors < limits.vectors_per_code * k:
        bar *= _usage.uniform_used(k, vectors) / k  # what even uniform usage would lose to the sample
        if usage.perplexity_high >= bar:
            raise CannotJudge(
                f"{vectors:,.0f} independent vectors are too few for {k:,} codes: give {_usage.PLENTY * k:,}"
            )
    if enough := _usage.enough_for_task(usage, task):
        yield _enough(usage, task, bar, enough)
        return
    certain = usage.perplexity_high < bar
    doubt = "" if certain else f", {figure(usage.perplexity_high)} at best"
    bits = levels is not None and set(levels.levels) == {2}
    remedies = (OF_BITS if bits else WITHOUT_CODEBOOK) if usage.implicit else WITH_CODEBOOK
    yield problem(
        _severity(usage, task, bar, limits) if certain else Severity.WARNING,
        f"The model uses the equivalent of {figure(usage.perplexity)} of its {k:,} codes "
        f"(perplexity{doubt}), where at least {figure(bar)} are expected"
        f"{_channels(levels, limits.edge_share)}.",
        measured("perplexity", usage.perplexity, bar, unit="codes"),
        measured("perplexity_high", usage.perplexity_high, unit="codes"),
        measured("used", usage.used, unit="codes"),
        confidence=Confidence.HIGH if usage.source == "batch" and certain else Confidence.MEDIUM,
        decide_with="" if usage.source == "batch" else "--data batch.npz",
        remedies=remedies,
    )


def _severity(usage: Usage, task: TaskMetrics | None, bar: float, limits: Limits) -> Severity:
    """Return a warning where the usage is near enough, and z_e in place of the codes does no better."""
    if usage.source != "batch" or task is None or task.bypass_loss is None:
        return Severity.ERROR
    near = usage.perplexity >= limits.nearly * bar
    return Severity.WARNING if near and not _harm.costs(task) else Severity.ERROR


def _enough(usage: Usage, task: TaskMetrics | None, bar: float, enough: str) -> Problem:
    """Say that the task needs no more codes than the model uses."""
    return problem(
        Severity.NOTE,
        f"The model uses the equivalent of {figure(usage.perplexity)} of its {usage.num_codes:,} codes, "
        f"which is enough for {enough}.",
        measured("perplexity", usage.perplexity, bar, unit="codes"),
        if_known("classes", None if task is None else task.classes),
        if_known("accuracy", None if task is None else task.accuracy),
        if_known("bypass_accuracy", None if task is None else task.bypass_accuracy),
        remedies=() if usage.implicit else (_usage.FEWER_CODES,),
    )


def _channels(levels: ImplicitLevels | None, edge_share: float) -> str:
    """Return the part of the message on stuck and saturated channels; "" without such channels."""
    if levels is None:
        return ""
    of = f"of {len(levels.levels)} channels"
    stuck, ends = _levels.stuck(levels), _levels.saturated(levels, edge_share)
    said = [f"{stuck} {of} use a single level"] if stuck else []
    said += [f"{ends} {of} at their lowest or highest"] if ends else []
    return f"; {' and '.join(said)}" if said else ""


_SPEECH_CODEC = Usage.healthy(
    num_codes=512, sample_size=5_767, used=431, active=402, expected_used=512.0, expected_active=512.0,
    share=0.84, perplexity=185.0, perplexity_low=178.0, perplexity_high=192.0, plug_in_perplexity=178.0,
    max_share=0.043, groups=1, effective_size=5_767.0,
)  # fmt: skip
_LARGE_FSQ_LEVELS = ImplicitLevels.healthy(
    levels=(8, 8, 8, 5, 5, 5), used=(7, 8, 8, 5, 5, 5), edge_share=(0.01, 0.02, 0.04, 0.02, 0.29, 0.36)
)
_LARGE_FSQ = IMPLICIT_USAGE.replace(
    num_codes=64_000, used=1_827, expected_used=23_162.0, share=0.029, perplexity=618.0, perplexity_low=610.0,
    perplexity_high=626.0,
)  # fmt: skip
_FIVE_CODES = COLLAPSED_USAGE.replace(
    num_codes=64, used=5, active=5, perplexity=5.0, perplexity_low=4.99, perplexity_high=5.03
)
_FIVE_WAVES = TaskMetrics.healthy(
    classes=None, accuracy=None, bypass_accuracy=None, shuffled_accuracy=None, mean_code_accuracy=None,
    chance_accuracy=None, loss=0.00249, bypass_loss=0.00245, mean_code_loss=0.379,
)  # fmt: skip

_NEARLY = COLLAPSED_USAGE.replace(
    used=73, active=60, perplexity=36.6, perplexity_low=35.8, perplexity_high=37.7, max_share=0.079
)
_AS_WITHOUT_VQ = TaskMetrics.healthy(accuracy=0.396, bypass_accuracy=0.412, chance_accuracy=0.188)

CHECK = Check(
    code="VQ501",
    name="codebook-collapse",
    evaluate=evaluate,
    limits=Limits(),
    remedies=(*WITH_CODEBOOK, *OF_BITS),
    advice=Advice(
        name=_usage.FEWER_CODES,
        how="Behind a pure classifier take a codebook of a few codes a class, or FSQ; a decoder with a "
        "reconstruction loss gives more codes something to do.",
        code="num_codes = 4 * num_classes   # or FSQ",
        setting=("codes", "4 * num_classes"),
    ),
    explained_by=(*COLLAPSE, "VQ503"),
    meaningless_after=(
        "VQ306",
        "VQ311",
    ),
    examples=(
        fires("every vector on one code", COLLAPSED_USAGE),
        fires(
            "one code in the EMA counts of a bare file",
            EMA_USAGE.replace(used=256, active=1, perplexity=1.01, perplexity_high=1.01, max_share=0.998),
        ),
        fires(
            "one code, on a sample so small that even usage could show 57 codes at most",
            COLLAPSED_USAGE.replace(sample_size=64, groups=4, effective_size=64.0, expected_used=57.0),
        ),
        fires(
            "FSQ, its channels at their ends",
            IMPLICIT_USAGE.replace(used=8, perplexity=6.1, perplexity_low=6.0, perplexity_high=6.2),
            ImplicitLevels.healthy(used=(2, 2, 2), edge_share=(1.0, 0.99, 1.0)),
        ),
        fires(
            "a pure classifier with a code for each class: a note",
            COLLAPSED_USAGE.replace(
                used=14, active=11, perplexity=11.0, perplexity_low=10.8, perplexity_high=11.2
            ),
            TaskMetrics.healthy(classes=10),
        ),
        fires(
            "a decoder of five waveforms with a code for each: a note",
            _FIVE_CODES,
            _FIVE_WAVES,
        ),
        fires(
            "three quarters of the limit, and z_e in place of the codes does no better: a warning",
            _NEARLY,
            _AS_WITHOUT_VQ,
        ),
        passes("healthy", Usage.healthy()),
        passes("padding on one code, and the others in use (VQ511)", _usage.PADDED_USAGE),
        passes("a healthy FSQ", IMPLICIT_USAGE, ImplicitLevels.healthy()),
        passes("FSQ with far more combinations than the data needs", _LARGE_FSQ, _LARGE_FSQ_LEVELS),
        passes("a deployed speech codec, perplexity 0.36 K", _SPEECH_CODEC),
    ),
    doc=__doc__,
)
