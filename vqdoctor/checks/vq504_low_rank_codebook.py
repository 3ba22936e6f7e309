"""The codes lie in fewer directions than the encoder's outputs.

## Why it matters
Whatever z_e says in a direction in which no two codes differ is lost, however many codes are used. It
happens where the codes are made by a map of low rank, or started on a line and never left it.

## How to read it
The effective rank is the number of directions that share the variance evenly: exp of the entropy of the
squared singular values about the mean, faded and blown-up codes left out. It is compared with that of
z_e (or K - 1, all that K codes can have), not against D: a codebook of rank 2.7 in 64 dimensions is
right for data of rank 2.5, which is what healthy digit models measured. A low rank without a cost is
harmless, so the quantization error has to be large too. The residual levels after the first are not judged:
what is left for them is small and lies in all directions, and sound ones lose 0.4 to 0.7 of its variance.
Without data there is no rank to compare with. FSQ, LFQ and BSQ store no codes; there a channel that stays
at one level is a lost direction.

## Remedy
data-init: codes that are taken from z_e have its directions. Where a map makes the codes, give it full
rank first. For a channel that stays at one level normalise-before-vq, so that z_e spans its levels.

## References
- Roy and Vetterli 2007, The effective rank: a measure of effective dimensionality
- Zhu et al. 2024, Addressing Representation Collapse in Vector Quantized Models (SimVQ), arXiv:2411.02038
"""

from vqdoctor.checks import _levels
from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._words import Problems, figure, measured, percent, warning
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, NoEvidence, fires, limit, passes
from vqdoctor.core.evidence import CodebookGeometry, DataMatch, ImplicitLevels, ResidualLevel


class Limits(CheckLimits):
    """How far the codes may fall short of the data, and what it must cost."""

    rank_ratio: float = limit(
        0.5,
        "Least ratio of the effective ranks of the codes and of z_e. Trained models that use their codes "
        "measured 0.79 to 1.2; codes that a map of rank 1 or 2 makes, for data of rank 7, 0.14 and 0.27.",
    )
    quantization_error: float = limit(
        0.25,
        "Least quantization error, as a share of the variance of z_e, for a low rank to count. Healthy "
        "models measured 0.03 to 0.17, codes of rank 1 and 2 for data of rank 7 0.84 and 0.72.",
    )


def evaluate(
    geometry: CodebookGeometry | None,
    match: DataMatch | None,
    levels: ImplicitLevels | None,
    level: ResidualLevel | None,
    limits: Limits,
) -> Problems:
    """Fire where the codes have fewer directions than the data, and where that loses something."""
    if levels is not None:
        stuck, channels = _levels.stuck(levels), len(levels.levels)
        if stuck:
            yield warning(
                f"{stuck} of the layer's {channels} channels stay at one level, so that the codes lie in "
                f"{channels - stuck} directions.",
                measured("stuck", stuck, 0.0, unit="channels"),
                remedies=("normalise-before-vq",),
            )
        return
    if geometry is None or match is None:
        raise NoEvidence("the codes, or the vectors that they stand for, are not known")
    if match.data_effective_rank <= 0:
        return
    if level is not None and level.level > 1:
        raise CannotJudge(f"level {level.level} of {level.levels} quantizes what the levels before it left")
    # K points have K - 1 directions at most: a small codebook is not of low rank
    ratio = geometry.effective_rank / min(match.data_effective_rank, max(geometry.sample_size - 1.0, 1.0))
    if ratio < limits.rank_ratio and match.quantization_error > limits.quantization_error:
        yield warning(
            f"The codes lie in {figure(geometry.effective_rank)} directions and the encoder's "
            f"outputs in {figure(match.data_effective_rank)} of {match.dim}: quantizing loses "
            f"{percent(match.quantization_error)} of their variance.",
            measured("rank_ratio", ratio, limits.rank_ratio),
            measured("quantization_error", match.quantization_error, limits.quantization_error),
            measured("effective_rank", geometry.effective_rank),
            measured("data_effective_rank", match.data_effective_rank),
            remedies=("data-init",),
        )


CHECK = Check(
    code="VQ504",
    name="low-rank-codebook",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("data-init", "normalise-before-vq"),
    explained_by=(*COLLAPSE, "VQ501", "VQ502", "VQ503"),
    examples=(
        fires(
            "codes on a line, data in seven directions",
            CodebookGeometry.healthy(effective_rank=1.0),
            DataMatch.healthy(data_effective_rank=6.9, quantization_error=0.83),
        ),
        fires(
            "one of three channels stuck", ImplicitLevels.healthy(used=(8, 1, 5), edge_share=(0.3, 0.0, 0.4))
        ),
        passes("a healthy FSQ", ImplicitLevels.healthy()),
        passes(
            "a healthy codebook of rank 2.7 in 64 dimensions",
            CodebookGeometry.healthy(effective_rank=2.71),
            DataMatch.healthy(data_effective_rank=2.49, quantization_error=0.037),
        ),
        passes(
            "the directions that the codes lack hardly matter",
            CodebookGeometry.healthy(effective_rank=1.2),
            DataMatch.healthy(data_effective_rank=2.6, quantization_error=0.11),
        ),
    ),
    doc=__doc__,
)
