"""The VQ loss is too light to keep the encoder near the codebook.

## Why it matters
With hardly any commitment z_e grows freely. Codes that are chosen follow late, the other codes do not
follow, and the share of codes within reach shrinks with every epoch.

## How to read it
Two things must come together: z_e is several times as large as the codes, and the weighted VQ loss
pulls at z_e with less than a thousandth of the task's gradient. That pull grows with the distance to the
codes, like that of a spring, so that a loss of weight 0.00001 pulls with a hundredth of the task once z_e is
10,000 times as far as they are large: where z_e is farther than that, it is taken as it would be there. For a
weight of 0.1 and more, which the remedy would leave, it is taken as it is: there the distance has another
cause.
Where an EMA follows, the codes grow with z_e, and no distance shows it: then a recorded weight of a
thousandth and less counts beside a z_e of size 30 and more that no raw input explains, or where its pull is
under the same limit and z_e in place of the codes makes the task loss much larger.
Large z_e alone does not prove it:
dead codes that fade to zero shrink the codebook too (a ratio of 6 was measured without any runaway).
A few training steps (`--probe-steps 20`) show the runaway itself, and earlier: z_e grows from the first
quarter of the steps to the last, the codes that are chosen lag behind, and the VQ loss hardly pulls. That
z_e grows while the codes follow late is normal in the first epochs of any training (z_e x 2.7, codes x 2.1
on a run that ended well), so there, too, the gradient decides; where the weight of the VQ loss is unknown
it is a guess. Codes that follow z_e all the way never lag: there the same limit of the gradient counts where
z_e has lost its directions and the task is badly done. Dead codes do not mislead this way, since only chosen
codes count. A layer that normalises vectors before the lookup is not judged.
On 8x8 digits weight 0.001 gave a gradient ratio of 0.0008 and perplexity 9 of 256; weight 0.1 gave
0.004 and stayed healthy.

## Remedy
raise-vq-weight: up to 0.1 to 1. Where it is the commitment term that is light within the VQ loss, a larger
weight of the whole would move the codes alone: commitment-term, 0.25 · mse(z_e, sg z_q).
normalise-before-vq: a norm layer, or cosine codes, bounds z_e.

## References
- lucidrains/vector-quantize-pytorch#26, #27: the VQ loss grows while the encoder's norm drifts
- Łańcucki et al. 2020, Robust Training of Vector Quantized Bottleneck Models, arXiv:2005.08520
"""

from vqdoctor.checks import _harm, _scale
from vqdoctor.checks._reach import RAW, is_raw
from vqdoctor.checks._words import Problems, figure, measured, percent, problem, warning
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, NoEvidence, fires, limit, passes
from vqdoctor.core.evidence import (
    DataMatch,
    Directions,
    EmaRelation,
    FirstInput,
    LookupScale,
    LossBalance,
    LossTerms,
    TaskMetrics,
    Trace,
    WeightDecay,
)
from vqdoctor.core.finding import Problem
from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Confidence, Severity

LIGHT, WITHIN = ("raise-vq-weight", "normalise-before-vq"), ("commitment-term", "normalise-before-vq")
"""The remedies of a VQ loss that is too light as a whole, and of one that is so in its commitment term."""


class Limits(CheckLimits):
    """When the encoder counts as having run away."""

    scale_ratio: float = limit(
        3.0,
        "Largest ratio of the sizes (root mean square) of z_e and of the codes. Healthy digit models "
        "measured 1.1 to 2.5, runaways 3.3 to 5.",
    )
    gradient_ratio: float = limit(
        0.001,
        "Least ratio of the weighted VQ loss's gradient and the task's at z_e, at no more than a code's "
        "length from the codes. Healthy digit models measured at least 0.0034, runaways at most 0.0008.",
    )
    usual: float = limit(
        0.1,
        "Least weight of the VQ loss whose pull is taken as it is, however far z_e lies from the codes: the "
        "least that raise-vq-weight would set.",
    )
    weight: float = limit(
        0.001,
        "Largest recorded weight of the VQ loss that counts beside a z_e as large as a raw input. On digits "
        "0.001 ended at perplexity 9 of 256, and 0.1 was healthy.",
    )
    size: float = limit(
        RAW,
        "Least size of z_e (root mean square) that an input of ordinary size does not explain: that from "
        "which VQ314 calls an input raw. Three EMA layers trained with weight 0.00001 measured 89 to 143, "
        "two other models with weight 0.25 0.3 and 1.8.",
    )
    beta: float = limit(
        0.01,
        "Largest weight of the commitment term, as a share of the codebook term's, at which that term is too "
        "light, and not the whole VQ loss: a tenth of the least usual beta (0.1 to 1).",
    )
    drift_growth: float = limit(
        1.2,
        "Least growth of z_e from the first to the last quarter of the trained steps. Batches differ by up "
        "to 7 % on trained digit models; runaways grew by 1.3 to 4 in 20 to 60 steps.",
    )
    drift_lag: float = limit(
        1.1,
        "Least growth of the ratio of the sizes of z_e and of the chosen codes over the same steps. "
        "Models at rest measured 0.96 to 1.03, runaways 1.13 to 2.1.",
    )
    drift_ratio: float = limit(
        2.0,
        "Least ratio of these sizes at the end of the steps. Models at rest measured 1.0 to 1.5, codes that "
        "lag behind a runaway 2.8 to 3.2.",
    )


def evaluate(
    match: DataMatch | None,
    balance: LossBalance | None,
    trace: Trace | None,
    decay: WeightDecay | None,
    first: FirstInput | None,
    scale: LookupScale | None,
    directions: Directions | None,
    metrics: TaskMetrics | None,
    terms: LossTerms | None,
    relation: EmaRelation | None,
    limits: Limits,
) -> Problems:
    """Fire where z_e is far larger than the codes, or runs from them, and the VQ loss hardly pulls."""
    if scale is not None and scale.vector_spread <= _scale.ONE_LENGTH:
        raise CannotJudge("all vectors have one length when they are looked up, so z_e cannot run away")
    held = None if balance is None else balance.ratio
    drift = None if trace is None else _drift(trace, limits)
    acted = _harm.severity(metrics, acts=True)
    if drift is not None and (held is None or held < limits.gradient_ratio):
        yield _runaway(drift, held, acted, limits)
        return
    if match is None:
        if trace is None:
            raise NoEvidence("no evidence of kind data-match or trace")
        return
    ruined = _harm.narrowed(directions, metrics)
    if match.scale_ratio <= limits.scale_ratio:
        followed = list(_followed(match, balance, first, metrics, relation, limits))
        if not followed and ruined and held is not None and held < limits.gradient_ratio:
            yield warning(
                f"The VQ loss that should hold the encoder has only {percent(held)} of the task's pull, and "
                "z_e is left with a handful of directions: the codes followed it away from the start.",
                measured("gradient_ratio", held, limits.gradient_ratio),
                confidence=Confidence.MEDIUM,
                remedies=LIGHT,
            )
        yield from followed
        return
    if is_raw(match, decay, first):
        raise CannotJudge("z_e has the scale of a raw input, whatever the VQ loss does (VQ314)")
    if balance is None or balance.ratio is None:
        raise CannotJudge(
            f"z_e is {figure(match.scale_ratio)} times as large as the codes, but only the gradients and the "
            "weight of the VQ loss could tell whether that loss is too light"
        )
    yield from _behind(match, balance, terms, limits)


def _behind(match: DataMatch, balance: LossBalance, terms: LossTerms | None, limits: Limits) -> Problems:
    """Fire on codes that lag far behind a z_e that hardly anything pulls back."""
    pull = _pull(match, balance, limits)
    if pull < limits.gradient_ratio:
        usual = balance.vq_weight is not None and balance.vq_weight >= limits.usual
        beta = terms.commitment / terms.codebook if terms and terms.commitment and terms.codebook else 1.0
        within = usual and beta <= limits.beta
        why = f": within it the commitment term has {percent(beta)} of the codebook term's weight"
        yield warning(
            f"The encoder's output is {figure(match.scale_ratio)} times as large as the codes, and the VQ "
            f"loss that should hold it has only {percent(pull)} of the task's pull{why if within else ''}.",
            measured("scale_ratio", match.scale_ratio, limits.scale_ratio),
            measured("gradient_ratio", pull, limits.gradient_ratio),
            measured("commitment_weight", beta, limits.beta) if within else None,
            confidence=Confidence.MEDIUM,
            remedies=WITHIN if within else LIGHT,
        )


def _followed(
    match: DataMatch,
    balance: LossBalance | None,
    first: FirstInput | None,
    metrics: TaskMetrics | None,
    relation: EmaRelation | None,
    limits: Limits,
) -> Problems:
    """Fire on a z_e that codes followed, away from the start or on their own, held by next to no weight."""
    weight = None if balance is None else balance.vq_weight
    if balance is None or weight is None or weight > limits.weight:
        return
    acted = _harm.severity(metrics, acts=True)
    if first is not None and _harm.outgrown(match, first, limits.size):
        yield problem(
            acted,
            f"The encoder's output has grown to size {figure(match.data_rms)} from inputs of size "
            f"{figure(first.rms)}, and the VQ loss that should hold it has a weight of {figure(weight)}.",
            measured("z_e_size", match.data_rms, limits.size),
            measured("vq_weight", weight, limits.weight),
            confidence=Confidence.MEDIUM,
            remedies=LIGHT,
        )
    elif _is_slack(match, balance, limits) and metrics is not None and _harm.apart(metrics, relation):
        yield problem(
            acted,
            f"The VQ loss that should hold the encoder has a weight of {figure(weight)}, and the decoder "
            "does not know z_e: in place of its codes it makes the task loss "
            f"{figure((metrics.bypass_loss or 0.0) / metrics.loss)} times as large.",
            measured("vq_weight", weight, limits.weight),
            measured("gradient_ratio", _pull(match, balance, limits), limits.gradient_ratio),
            confidence=Confidence.MEDIUM,
            remedies=LIGHT,
        )


def _is_slack(match: DataMatch, balance: LossBalance, limits: Limits) -> bool:
    return balance.ratio is not None and _pull(match, balance, limits) < limits.gradient_ratio


def _pull(match: DataMatch, balance: LossBalance, limits: Limits) -> float:
    """Return the VQ loss's pull at z_e, as a share of the task's.

    Its gradient grows with the distance of z_e from its code: in lengths of a code, that is taken out, unless
    the weight is a usual one.
    """
    length = match.codebook_rms * match.dim**0.5
    stretch = match.quantization_error**0.5 * match.data_std / length if length else 1.0
    usual = balance.vq_weight is not None and balance.vq_weight >= limits.usual
    return (balance.ratio or 0.0) if usual else (balance.ratio or 0.0) / max(stretch, 1.0)


@frozen
class _Drift:
    """How z_e and the chosen codes moved over a trace: growth of z_e, of the codes, and their last ratio."""

    z_e: float
    codes: float
    ratio: float


def _drift(trace: Trace, limits: Limits) -> _Drift | None:
    """Return the drift where it breaks all three limits; else, or of a short trace, None."""
    quarter = len(trace.z_e_rms) // 4
    if quarter < 1:
        return None
    first, last = slice(None, quarter), slice(-quarter, None)
    z_e = [sum(trace.z_e_rms[part]) for part in (first, last)]
    codes = [sum(trace.codebook_rms[part]) for part in (first, last)]
    if not (z_e[0] and codes[0] and codes[1]):
        return None
    drift = _Drift(z_e=z_e[1] / z_e[0], codes=codes[1] / codes[0], ratio=z_e[1] / codes[1])
    runs = drift.z_e > limits.drift_growth and drift.z_e / drift.codes > limits.drift_lag
    return drift if runs and drift.ratio > limits.drift_ratio else None


def _runaway(drift: _Drift, held: float | None, acted: Severity, limits: Limits) -> Problem:
    pull = "by a loss of unknown weight" if held is None else f"by {percent(held)} of the task's pull"
    return problem(
        Severity.WARNING if held is None else acted,
        f"In a few training steps the encoder's output grew by a factor of {figure(drift.z_e)} and "
        f"the codes that it chose by {figure(drift.codes)}: it runs away from them, held {pull}.",
        measured("drift_growth", drift.z_e, limits.drift_growth),
        measured("drift_lag", drift.z_e / drift.codes, limits.drift_lag),
        measured("drift_ratio", drift.ratio, limits.drift_ratio),
        confidence=Confidence.LOW if held is None else Confidence.HIGH,
        decide_with="--trained-vq-weight W" if held is None else "",
        remedies=LIGHT,
    )


_RUNNING = Trace.healthy(
    z_e_rms=(5.1, 5.3, 5.6, 5.9, 6.2, 6.5, 6.8, 7.1), codebook_rms=(2.0, 2.1, 2.1, 2.2, 2.2, 2.3, 2.4, 2.5)
)

_FAR_AWAY = DataMatch.healthy(
    dim=16, data_rms=1640.0, data_std=4530.0, codebook_rms=0.138, mean_offset=1.05, quantization_error=2.09,
    scale_ratio=11_900.0, nearest_data=0.055,
)  # fmt: skip

_FOLLOWED = DataMatch.healthy(
    dim=16, data_rms=114.0, data_std=373.0, codebook_rms=70.0, mean_offset=0.43, quantization_error=0.09,
    scale_ratio=1.63, nearest_data=0.02,
)  # fmt: skip

_SLACK = (
    DataMatch.healthy(dim=16, data_rms=13.2, data_std=37.5, codebook_rms=5.0, scale_ratio=2.63),
    LossBalance.healthy(vq_weight=1e-5, ratio=0.00099),
    FirstInput.healthy(rms=0.51),
)
_DECODES = TaskMetrics.healthy(
    accuracy=None, bypass_accuracy=None, loss=0.0087, bypass_loss=0.0249, mean_code_loss=0.113
)

CHECK = Check(
    code="VQ202",
    name="vq-loss-too-light",
    evaluate=evaluate,
    limits=Limits(),
    remedies=(*LIGHT, "commitment-term"),
    explained_by=("VQ103", "VQ205", "VQ404"),
    meaningless_after=("VQ101", "VQ102"),
    examples=(
        fires(
            "weight 0.001: the encoder runs away from the codes",
            DataMatch.healthy(scale_ratio=3.31, data_std=26.3, quantization_error=0.33, nearest_data=0.34),
            LossBalance.healthy(vq_weight=0.001, vq_gradient=0.152, ratio=0.00076),
        ),
        fires(
            "weight 0.00001: it pulls with a hundredth only because z_e is 12,000 lengths away",
            _FAR_AWAY,
            LossBalance.healthy(vq_weight=1e-5, vq_gradient=8.9, task_gradient=0.0087, ratio=0.0103),
        ),
        passes(
            "the same distance at weight 0.25: an encoder gain made it",
            _FAR_AWAY,
            LossBalance.healthy(vq_weight=0.25, vq_gradient=8.9, task_gradient=0.0087, ratio=0.0103),
        ),
        fires(
            "weight 0.00001 beside an EMA, which follows z_e wherever it grows",
            _FOLLOWED,
            LossBalance.healthy(vq_weight=1e-5, vq_gradient=0.38, task_gradient=0.00024, ratio=0.0155),
            FirstInput.healthy(rms=0.78),
        ),
        fires(
            "the same, where z_e has not grown so far and the decoder does not know it",
            *_SLACK,
            _DECODES,
        ),
        passes(
            "the same where z_e does the task as well",
            *_SLACK,
            _DECODES.replace(bypass_loss=0.0086),
        ),
        fires(
            "weight 1 of a VQ loss whose commitment term has a weight of 0.00001 within it",
            DataMatch.healthy(scale_ratio=4.6),
            LossBalance.healthy(vq_weight=1.0, ratio=1e-5),
            LossTerms.healthy(commitment=1.7e-5, codebook=1.0),
        ),
        passes("the same size at weight 0.1", _FOLLOWED, LossBalance.healthy(), FirstInput.healthy(rms=0.78)),
        passes("weight 0.1", DataMatch.healthy(), LossBalance.healthy()),
        fires(
            "weight 0.001 after four epochs, in eight training steps",
            DataMatch.healthy(scale_ratio=2.94),
            LossBalance.healthy(vq_weight=0.001, ratio=0.00089),
            _RUNNING,
        ),
        passes(
            "first epoch of a good training", DataMatch.healthy(), LossBalance.healthy(ratio=0.036), _RUNNING
        ),
        passes("a model at rest", LossBalance.healthy(ratio=0.0), Trace.healthy()),
        passes(
            "dead codes faded to zero", DataMatch.healthy(scale_ratio=5.98), LossBalance.healthy(ratio=0.0079)
        ),
    ),
    doc=__doc__,
)
