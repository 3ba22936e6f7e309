"""The task is done well, but single positions carry little information: averaging hides a collapse.

## Why it matters
A head that averages over positions, or reads them all at once, needs only a trace of information from
each: sixteen poor votes make a good one. So the accuracy stays high while the codes of single positions have
collapsed, and whatever needs them one by one (a token model, a reconstruction, a segmentation) fails.

## How to read it
Two shares must be low together. The information of a code: the entropy of the codes given their
position, over log2 K. Its information about the label: the mutual information of one position's code
and the label, over the label's entropy. The report also shows the accuracy of the best guess from one code
and the accuracy of the model, which sees all positions. Healthy digit models measured 0.6 and 0.5, codebooks
that had collapsed to perplexity 3 to 14 of 256 at most 0.26 and 0.21.

The perplexity over all positions hides a collapse as well, where the codes say where a vector lies: each
position has its own few codes. Then most of the variance of z_e lies between the means of the positions, as
where an embedding of the position is added in front of the layer. Beside the two shares this counts whatever
the accuracy is.

## Remedy
An average over positions turns poor codes into a good accuracy, so a collapse is only seen where it is
not averaged away. The remedies of the causes that the other findings name cure the collapse itself. Where
z_e tells the position: position-after-codes adds its embedding behind the layer.

## References
- Miller 1955, Note on the Bias of Information Estimates (the correction for the sample size)
"""

import math

from vqdoctor.checks import _usage
from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.checks._words import Problems, error, figure, if_known, measured, percent
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import PositionInformation, TaskMetrics, Usage

PER_POSITION, AFTER_CODES = "check-per-position", "position-after-codes"


class Limits(CheckLimits):
    """When positions carry too little information, and when the task counts as done well."""

    entropy_share: float = limit(
        0.3,
        "Least entropy of the codes given their position, over log2 K. Healthy digit models measured 0.61 "
        "to 0.64, collapsed ones (perplexity 3 to 14 of 256) 0.14 to 0.26.",
    )
    information_share: float = limit(
        0.3,
        "Least information of one code about the label, over the label's entropy. Healthy digit models "
        "measured 0.45 to 0.51, collapsed ones (perplexity 3 to 14 of 256) 0.12 to 0.21.",
    )
    pooled_skill: float = limit(
        0.5,
        "Skill (accuracy above chance, over its largest possible value) from which the task counts as "
        "done well: under it nothing is masked, the model visibly fails.",
    )
    skill_gain: float = limit(
        0.2,
        "Skill that pooling all positions must add to that of a single code, for averaging to mask anything.",
    )
    position_share: float = limit(
        0.7,
        "Largest share of the variance of z_e that the means of the positions have. Sound models of aligned "
        "digits measured 0.14 to 0.49, of photos and movements at most 0.19, two with an embedding of the "
        "position in front of the layer, four times as large as z_e, 0.82.",
    )
    samples: float = limit(
        10.0,
        "Least samples for each code that the entropy's limit allows a position, K to the power of that "
        "share: 5 of 256. In 8 samples any position shows 8 codes at most, and looks poor in health too.",
    )


def evaluate(
    position: PositionInformation, usage: Usage, metrics: TaskMetrics | None, limits: Limits
) -> Problems:
    """Fire where the pooled task is done well by positions that carry little information."""
    if position.positions < 2:
        raise CannotJudge("there is one position only, so nothing is averaged")
    if usage.num_codes < 2 or position.label_entropy <= 0:
        raise CannotJudge("one code or one label carries no information in any model")
    accuracy = position.pooled_accuracy
    if metrics is not None and metrics.accuracy is not None:
        accuracy = metrics.accuracy  # the figure that the report quotes
    pooled = _skill(accuracy, position.chance_accuracy)
    single = _skill(position.code_accuracy, position.chance_accuracy)
    entropy = position.code_entropy / math.log2(usage.num_codes)
    information = position.code_information / position.label_entropy
    if entropy >= limits.entropy_share or information >= limits.information_share:
        return
    share = position.position_share
    enough = (
        position.sample_size / position.positions >= limits.samples * usage.num_codes**limits.entropy_share
    )
    placed = enough and share is not None and share > limits.position_share and not _usage.poor(usage)
    masked = pooled >= limits.pooled_skill and pooled - single >= limits.skill_gain
    if not placed and not masked:
        return
    bits = f"{figure(position.code_information)} of {figure(position.label_entropy)} bits about the label"
    yield error(
        f"{percent(share or 0.0)} of the variance of z_e lies between the positions, and a single position's "
        f"code says only {bits}: the codes tell where a vector lies, and not what is there."
        if placed
        else f"Accuracy is {figure(accuracy)}, but a single position's code says only {bits}: what "
        f"{position.positions} positions say together hides a collapse.",
        if_known("position_share", share, limits.position_share) if placed else None,
        measured("information_share", information, limits.information_share),
        measured("entropy_share", entropy, limits.entropy_share),
        measured("code_accuracy", position.code_accuracy),
        measured("pooled_accuracy", accuracy),
        remedies=(AFTER_CODES,) if placed else (PER_POSITION,),
    )


def _skill(accuracy: float, chance: float) -> float:
    """Return accuracy above chance over its largest possible value; 0 where chance is perfect."""
    return (accuracy - chance) / (1 - chance) if chance < 1 else 0.0


CHECK = Check(
    code="VQ601",
    name="collapse-masked-by-averaging",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name=PER_POSITION,
        how="Report entropy, usage and accuracy per position too, and stop early on these figures.",
        code="for p in range(positions):\n    report(p, entropy(indices[:, p]), usage(indices[:, p]))",
    ),
    other_advice=(
        Advice(
            name=AFTER_CODES,
            how="Add the embedding of the position behind the VQ layer, and not in front of it.",
            code="z_q, indices, vq_loss = vq(encoder(x))   # not vq(encoder(x) + position)\n"
            "out = decoder(z_q + position)",
            names=("vq", "z_q, indices, vq_loss"),
        ),
    ),
    explained_by=(*COLLAPSE, "VQ501", "VQ502", "VQ503"),
    examples=(
        fires(
            "eight codes, sixteen positions, one average",
            PositionInformation.healthy(
                code_information=0.6, code_accuracy=0.25, pooled_accuracy=0.91, code_entropy=1.66
            ),
            COLLAPSED_USAGE.replace(used=8, active=8, perplexity=7.7, perplexity_high=7.8),
            TaskMetrics.healthy(accuracy=0.91),
        ),
        fires(
            "a code or two for each position, in a model that fails",
            PositionInformation.healthy(
                code_information=0.3,
                code_accuracy=0.16,
                pooled_accuracy=0.52,
                code_entropy=0.64,
                position_share=0.82,
            ),
            Usage.healthy(
                num_codes=32,
                used=32,
                active=17,
                expected_used=32.0,
                expected_active=32.0,
                perplexity=11.8,
                perplexity_low=11.7,
                perplexity_high=11.9,
            ),
        ),
        passes("healthy", PositionInformation.healthy(), Usage.healthy(), TaskMetrics.healthy()),
        passes(
            "collapsed and visibly so",
            PositionInformation.healthy(
                code_information=0.0, code_accuracy=0.11, pooled_accuracy=0.11, code_entropy=0.0
            ),
            COLLAPSED_USAGE,
        ),
    ),
    doc=__doc__,
)
