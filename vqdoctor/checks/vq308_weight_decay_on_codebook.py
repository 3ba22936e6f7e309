"""Weight decay pulls the codes towards zero.

## Why it matters
A code that is not chosen gets no gradient, so weight decay alone moves it: towards zero, away from the
data, until all unused codes are one. Rarely chosen codes go the same way between two choices. In Adam
with L2 (`torch.optim.Adam(weight_decay=…)`) the decay is divided by its own size, so such a code loses
the learning rate every step, however small the decay is.

## How to read it
The number is the share of its length that a code which is never chosen has lost: 1 - (1 - lr · wd)^t for SGD
and AdamW, where a schedule lowered lr with the mean of its first and last value; for Adam t · lr against t ·
lr plus the size of an element now. On a gradient codebook (K = 256, digits, 1,000 steps) AdamW with 0.01 lost
2 % and left the perplexity as it was (23 without decay, 22 with it), 0.1 lost 18 % (20), 1 lost 87 % (11).
Adam with L2 lost everything, and had perplexity 16 with 1e-5, 15 with 1e-4 and 5 with 1e-2. So a loss of half
is the limit. It is a note where the usage is good in spite of it, or where the usage is unknown and the codes
have kept their length, unless the task lost by the codes, or z_e is several times as large as they are. Where
every code is shorter than the learning rate, which is one step of the optimizer, the decay has won over the
training, and it is an error if the task is badly done: the encoder went the same way, so z_e in place of the
codes is no better. An EMA codebook is not affected.

## Remedy
exempt-codebook: a parameter group of its own for the codebook, without weight decay.
Weight decay is meant for weights that multiply activations. A code is a point in the data: pulled to
zero it leaves the data. The same holds for AdamW's default of 0.01 over a long training, and for any
decay in plain Adam, which turns it into full steps of the learning rate. Codes that have already shrunk
need a revival as well.

## References
- Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, arXiv:1711.05101
- Karpathy, minGPT: weight decay on the weights of matrix products only, not on embeddings
"""

from vqdoctor.checks import _harm, _usage
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.checks._words import Problems, figure, measured, percent, problem
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodebookGeometry, DataMatch, TaskMetrics, Usage, WeightDecay
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """How much the decay may take."""

    lost: float = limit(
        0.5,
        "Share of its length that a code which is never chosen may lose by the end of training. 18 % cost "
        "an eighth of the perplexity, within the noise; 87 % halved it.",
    )
    short_rows: float = limit(
        0.5,
        "Share of the codes under a tenth of the longest code's length, from which the decay counts as "
        "having done it where the usage is unknown, and as having ruined the codebook where the usage is "
        "poor; healthy codebooks measured none.",
    )
    behind: float = limit(
        3.0,
        "Largest ratio of the sizes of z_e and of the codes that a codebook in use may have, as VQ202. "
        "Healthy digit models measured 1.1 to 2.5, one whose used codes AdamW had shortened too 3.8.",
    )


def evaluate(
    decay: WeightDecay,
    usage: Usage | None,
    geometry: CodebookGeometry | None,
    metrics: TaskMetrics | None,
    match: DataMatch | None,
    limits: Limits,
) -> Problems:
    """Compare the lost length with its limit; the usage, the task or the codes' length shows the harm."""
    if decay.weight_decay == 0:
        return
    if decay.lost is None:
        raise CannotJudge("the number of updates, or the learning rate of the codebook, is not known")
    if decay.lost <= limits.lost:
        return
    short = decay.short_rows > limits.short_rows * decay.sample_size
    harmed = short if usage is None else _usage.poor(usage)
    crushed = geometry is not None and geometry.norm_max < (decay.learning_rate or 0.0)
    ruined = (crushed and _harm.unlearned(metrics)) or (usage is not None and harmed and short)
    behind = match is not None and match.scale_ratio > limits.behind
    harmed = harmed or crushed or behind or (metrics is not None and _harm.costs(metrics))
    longest = figure(geometry.norm_max) if geometry is not None and crushed else ""
    bound = decay.lost_at_most
    taken = percent(decay.lost) if bound is None else f"at most {percent(bound)}"
    evenly = "" if bound is None else f"{percent(decay.lost)} if the learning rate fell evenly; "
    yield problem(
        Severity.ERROR if ruined else Severity.WARNING if harmed else Severity.NOTE,
        f"Weight decay {figure(decay.weight_decay)} on the codebook has taken {taken} "
        f"of the length of every code that is not chosen ({evenly}{decay.updates or 0:,} updates)"
        + (f": the longest one measures {longest}, less than one step of the optimizer." if crushed else "."),
        measured("lost", decay.lost, limits.lost),
        measured("weight_decay", decay.weight_decay),
        measured("short_rows", decay.short_rows, unit="codes"),
        confidence=Confidence.HIGH if usage is not None else Confidence.MEDIUM,
        decide_with="" if usage is not None else "--data batch.npz",
    )


_ADAM = WeightDecay.healthy(weight_decay=1e-4, adaptive=True, lost=1.0, short_rows=237)

CHECK = Check(
    code="VQ308",
    name="weight-decay-on-codebook",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("exempt-codebook",),
    examples=(
        fires("Adam with L2, usage poor", _ADAM, COLLAPSED_USAGE),
        fires("Adam with L2, a bare file", _ADAM),
        fires("AdamW for long, good usage", WeightDecay.healthy(updates=200_000, lost=0.86), Usage.healthy()),
        fires(
            "AdamW with 30 on everything: codes and encoder near zero",
            WeightDecay.healthy(learning_rate=2e-3, weight_decay=30.0, lost=1.0),
            Usage.healthy(),
            CodebookGeometry.healthy(norm_max=1.8e-5),
        ),
        fires(
            "AdamW with 0.1 at a large learning rate: codes in use, and a quarter of z_e's size",
            WeightDecay.healthy(weight_decay=0.1, learning_rate=5e-3, lost=0.69),
            Usage.healthy(),
            DataMatch.healthy(scale_ratio=3.8),
        ),
        passes("AdamW's default", WeightDecay.healthy(), COLLAPSED_USAGE),
        passes("a group without decay", WeightDecay.healthy(weight_decay=0.0, lost=0.0)),
    ),
    doc=__doc__,
)
