"""The VQ loss is lower where all vectors choose one code.

## Why it matters
Terms such as the entropy of a batch's codes, a diversity loss or a KL to uniform use are there to keep many
codes in use. With the wrong sign they do the opposite: the fewer codes are chosen, the lower the loss, until
one is left. No initialisation, warm-up or revival makes up for it.

## How to read it
Measured where less than half of the codes are in use, on the first training batch. In place of z_e the layer
gets a few vectors that choose different codes, each equally often; then all of them the first of these
vectors, all the second, and so on. A commitment or codebook loss is a mean over vectors, so that its value is
the same in both, whatever the vectors are. A difference comes from a term that couples vectors. It is judged
where the loss is lower with one code, and where the gradient of that term reaches z_e. A term on the codes
alone, such as one that makes them orthogonal, reaches no encoder and is not judged. A rate term, which makes
codes cheap to store, does the same on purpose: then its weight is too large, where few codes are left. With
enough of them left it is a warning of medium confidence.

## Remedy
Turn the sign of the term around: subtract the entropy of the mean use, add the entropy of each vector.

## References
- Baevski et al. 2020, wav2vec 2.0, arXiv:2006.11477, equation 4: the diversity loss is minus that entropy
- Yu et al. 2023, MAGVIT-v2, arXiv:2310.05737, equation 5: entropy of each vector minus that of the batch
"""

from vqdoctor.checks._usage import poor
from vqdoctor.checks._words import Problems, figure, measured, problem
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CollapseReward, Usage
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """When the difference is more than rounding."""

    gap: float = limit(
        0.01,
        "Least difference of the two losses, as a share of their sizes. A loss that is a mean over vectors "
        "has only rounding, 0.000001.",
    )
    reach: float = limit(
        1e-4,
        "Least share of the gradient at z_e that couples vectors: 100 times the rounding, 0.000001, that a "
        "mean over vectors has. Entropies of three models measured 0.0007 (saturated) to 0.5.",
    )


def evaluate(reward: CollapseReward, usage: Usage | None, limits: Limits) -> Problems:
    """Fire where one code costs less than several: an error where the usage is poor."""
    size = abs(reward.spread) + abs(reward.one)
    gap = (reward.spread - reward.one) / size if size else 0.0
    if gap >= limits.gap and reward.reach >= limits.reach:
        works = usage is not None and not poor(usage)  # a rate term is meant to, and may be light enough
        yield problem(
            Severity.ERROR if usage is not None and not works else Severity.WARNING,
            f"The VQ loss is {figure(reward.one)} where all vectors choose one code, and "
            f"{figure(reward.spread)} where they choose {reward.codes}: it rewards collapse, as an entropy "
            f"or diversity term with the wrong sign does{', or a rate term on purpose' if works else ''}.",
            measured("gap", gap, limits.gap),
            measured("reach", reward.reach, limits.reach),
            confidence=Confidence.MEDIUM if works else Confidence.HIGH,
        )


CHECK = Check(
    code="VQ207",
    name="vq-loss-rewards-collapse",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="turn-diversity-sign",
        how="Turn the sign of the term that couples vectors: the loss must fall where more codes are used.",
        code="use = (-distances).softmax(-1).flatten(0, -2).mean(0)  # of the batch\n"
        "entropy = -(use * use.clamp_min(1e-8).log()).sum()\n"
        "vq_loss = commitment - 0.1 * entropy",
        in_source=True,
    ),
    explained_by=("VQ901",),
    examples=(
        fires("an entropy with the wrong sign", CollapseReward.healthy(spread=1.8, one=0.4)),
        fires("the same below zero", CollapseReward.healthy(spread=-0.4, one=-1.8)),
        passes("an entropy with the right sign", CollapseReward.healthy()),
        passes("a commitment loss", CollapseReward.healthy(spread=0.7, one=0.7000001, reach=1e-7)),
        passes("orthogonal codes", CollapseReward.healthy(spread=1.8, one=0.4, reach=0.0)),
        passes("no loss at all", CollapseReward.healthy(spread=0.0, one=0.0, reach=0.0)),
    ),
    doc=__doc__,
)
