"""The VQ loss is too light to keep the encoder near the codebook.

## Why it matters
With hardly any commitment nothing stops z_e from growing. Codes that are chosen follow late, codes
that are not chosen never, and the share of codes within reach shrinks with every epoch.

## How to read it
Two things must come together: z_e is several times as large as the codes, and the weighted VQ loss
pulls at z_e with less than a thousandth of the task's gradient. Large z_e alone does not prove it:
dead codes that fade to zero shrink the codebook too (a ratio of 6 was measured without any runaway).
On 8x8 digits weight 0.001 gave a gradient ratio of 0.0008 and perplexity 9 of 256; weight 0.1 gave
0.004 and stayed healthy.

## Remedy
raise-vq-weight: up to 0.1 to 1. normalise-before-vq: a norm layer, or cosine codes, bounds z_e.

## References
- lucidrains/vector-quantize-pytorch#26, #27: the VQ loss grows while the encoder's norm drifts
- Łańcucki et al. 2020, Robust Training of Vector Quantized Bottleneck Models, arXiv:2005.08520
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vqdoctor.checks._specimens import DATA_MATCH, LOSS_BALANCE
from vqdoctor.checks._words import figure, percent
from vqdoctor.core.check import CannotJudge, Check, Example, limit
from vqdoctor.core.evidence import DataMatch, LossBalance
from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Confidence, Severity


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When the encoder counts as having run away."""

    scale_ratio: float = limit(
        3.0,
        "Largest ratio of the sizes (root mean square) of z_e and of the codes. Healthy digit models "
        "measured 1.1 to 2.5, runaways 3.3 to 5.",
    )
    gradient_ratio: float = limit(
        0.001,
        "Least ratio of the weighted VQ loss's gradient and the task's at z_e. Healthy digit models "
        "measured at least 0.0034, runaways at most 0.0008.",
    )


def evaluate(match: DataMatch, balance: LossBalance | None, limits: Limits) -> Iterator[Problem]:
    """Fire where z_e is far larger than the codes and next to nothing holds it."""
    if match.scale_ratio <= limits.scale_ratio:
        return
    if balance is None or balance.ratio is None:
        raise CannotJudge(
            f"z_e is {figure(match.scale_ratio)} times as large as the codes, but only the gradients and the "
            "weight of the VQ loss could tell whether that loss is too light"
        )
    if balance.ratio < limits.gradient_ratio:
        yield Problem(
            message=f"The encoder's output is {figure(match.scale_ratio)} times as large as the codes, "
            f"and the VQ loss that should hold it has only {percent(balance.ratio)} of the task's pull.",
            severity=Severity.WARNING,
            confidence=Confidence.MEDIUM,
            measurements=(
                Measurement(name="scale_ratio", value=match.scale_ratio, limit=limits.scale_ratio),
                Measurement(name="gradient_ratio", value=balance.ratio, limit=limits.gradient_ratio),
            ),
        )


CHECK = Check(
    code="VQ202",
    name="vq-loss-too-light",
    title="The VQ loss is too light to keep the encoder near the codebook.",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("raise-vq-weight", "normalise-before-vq"),
    explained_by=("VQ103",),
    meaningless_after=("VQ101", "VQ102"),
    examples=(
        Example(
            title="weight 0.001: the encoder runs away from the codes",
            evidence=(
                DATA_MATCH.replace(
                    scale_ratio=3.31, data_std=26.3, quantization_error=0.33, nearest_data=0.34
                ),
                LOSS_BALANCE.replace(vq_weight=0.001, vq_gradient=0.152, ratio=0.00076),
            ),
            fires=True,
        ),
        Example(title="weight 0.1", evidence=(DATA_MATCH, LOSS_BALANCE), fires=False),
        Example(
            title="dead codes faded to zero, the encoder stayed",
            evidence=(DATA_MATCH.replace(scale_ratio=5.98), LOSS_BALANCE.replace(ratio=0.0079)),
            fires=False,
        ),
    ),
    doc=__doc__,
)
