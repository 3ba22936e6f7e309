"""One code takes most of the vectors, and all others are used evenly.

## Why it matters
Padding, silence and masked positions are not data. If they pass through the layer, they all land on one code:
the perplexity then measures the share of padding, the codebook and the encoder are trained on it, and a loss
that is averaged over all positions is diluted by it.

## How to read it
One code has at least ten times as many vectors as the next, and the others, taken alone, have the perplexity
of a working codebook. So the codebook has not collapsed; which codes are dead is judged by the usage of the
others. In a model with 81 % padding the perplexity was 3.9 of 128 codes, and 101 on the real frames.
Data that is mostly one thing, such as silence in speech, gives the same picture. Where the padding entered
the codebook's start or a revival as well, it has left copies: half of the codes and more are one and the same
row, one code takes most of the vectors, and most of the other codes are in use.

## Remedy
mask-padding: pass the mask to the layer, so that masked positions are neither quantized nor counted, and
average the losses over the real positions. `--mask KEY` leaves masked positions out of the examination.

## References
- lucidrains/vector-quantize-pytorch#62, #149: a mask of the padded positions
- WhisperSpeech#62: short clips that are padded to 30 seconds
"""

from vqdoctor.checks import _usage
from vqdoctor.checks._usage import COLLAPSED_USAGE, PADDED_USAGE
from vqdoctor.checks._words import Problems, figure, measured, percent, warning
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodebookGeometry, Usage
from vqdoctor.core.levels import Confidence


class Limits(CheckLimits):
    """When copies of one row are those of padding."""

    copies: float = limit(
        0.5,
        "Least share of the codes that equal one row: most draws hit one vector. Codes that were drawn from "
        "data with 87 % padding measured 0.75.",
    )
    share: float = limit(
        0.25,
        "Least share of the vectors that one code takes beside these: that from which one code stands out in "
        "a working codebook. The layer above measured 0.87.",
    )
    others: float = limit(
        0.5,
        "Least share of the other codes, without the copies, that are in use: a collapse leaves few. The "
        "layer above measured 0.94, and the least of a codebook that works is the same half (VQ502).",
    )
    used: float = limit(
        8.0,
        "Fewest codes in use. A collapse beside copies used 1 of 2 codes that were left, the layer above 16.",
    )
    left: float = limit(
        0.02,
        "Least share of the vectors that the others keep, as beside one code that stands out. "
        "The layer above measured 0.13, a collapse beside copies 0.",
    )


def evaluate(usage: Usage, geometry: CodebookGeometry | None, limits: Limits) -> Problems:
    """Ask whether one code alone makes the usage poor, then whether most codes are copies of one row."""
    rest = usage.rest_perplexity
    if rest is not None and _usage.one_stands_out(usage):
        yield warning(
            f"One code takes {percent(usage.max_share)} of the vectors and the others are used evenly "
            f"(perplexity {figure(rest)} without it): it may be padding, silence or a masked value.",
            measured("max_share", usage.max_share),
            measured("perplexity", usage.perplexity, unit="codes"),
            measured("rest_perplexity", rest, unit="codes"),
            confidence=Confidence.MEDIUM,
            decide_with=_masked(usage),
        )
    elif geometry is not None and geometry.most_copied and _is_copied(usage, geometry, limits):
        yield warning(
            f"{geometry.most_copied:,} of {geometry.sample_size:,} codes are one and the same row, and one "
            f"code takes {percent(usage.max_share)} of the vectors: the codebook was placed on vectors most "
            "of which are alike, such as padding, silence or a masked value.",
            measured("most_copied", geometry.most_copied, limits.copies * geometry.sample_size, unit="codes"),
            measured("max_share", usage.max_share, limits.share),
            confidence=Confidence.MEDIUM,
            decide_with=_masked(usage),
        )


def _is_copied(usage: Usage, geometry: CodebookGeometry, limits: Limits) -> bool:
    others = geometry.sample_size - geometry.duplicate_rows
    return (
        (geometry.most_copied or 0) >= limits.copies * geometry.sample_size
        and limits.share <= usage.max_share <= 1 - limits.left
        and usage.used >= max(limits.others * others, limits.used)
    )


def _masked(usage: Usage) -> str:
    return "--mask KEY" if usage.source == "batch" else "--data batch.npz --mask KEY"


_ON_PADDING = Usage.healthy(
    used=64, active=60, share=0.25, perplexity=1.99, perplexity_low=1.9, perplexity_high=2.1, max_share=0.87
)
_COPIED = CodebookGeometry.healthy(duplicate_rows=188, most_copied=189)

CHECK = Check(
    code="VQ511",
    name="one-code-stands-out",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="mask-padding",
        how="Pass the mask of the real positions to the VQ layer, and average the losses over these.",
        code="z_q, indices, vq_loss = vq(z_e, mask=mask)   # [B, T], True for data\n"
        "task = (error * mask).sum() / mask.sum()",
        names=("vq", "z_q, indices, vq_loss"),
    ),
    examples=(
        fires("81 % padding on one code", PADDED_USAGE),
        fires("most codes were placed on padding", _ON_PADDING, _COPIED),
        passes("a collapse beside as many copies", COLLAPSED_USAGE, _COPIED),
        passes(
            "a collapse onto the two codes that copies have left",
            COLLAPSED_USAGE.replace(used=2, max_share=0.7),
            CodebookGeometry.healthy(duplicate_rows=253, most_copied=254),
        ),
        passes("a collapse that touches others hardly ever", _ON_PADDING.replace(max_share=0.99), _COPIED),
        passes("healthy", Usage.healthy()),
        passes("a collapse", COLLAPSED_USAGE),
        passes(
            "a background that takes much, in a layer that works all the same",
            Usage.healthy(max_share=0.3, rest_perplexity=190.0),
        ),
    ),
    doc=__doc__,
)
