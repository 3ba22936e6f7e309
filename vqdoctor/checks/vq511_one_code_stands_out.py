"""One code takes most of the vectors, and all others are used evenly.

## Why it matters
Padding, silence and masked positions are not data. If they pass through the layer, they all land on one code:
the perplexity then measures the share of padding, the codebook and the encoder are trained on it, and a loss
that is averaged over all positions is diluted by it.

## How to read it
One code has at least ten times as many vectors as the next, and the others, taken alone, have the perplexity
of a working codebook. So the codebook has not collapsed; which codes are dead is judged by the usage of the
others. In a model with 81 % padding the perplexity was 3.9 of 128 codes, and 101 on the real frames.
Data that is mostly one thing, such as silence in speech, gives the same picture.

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
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, passes
from vqdoctor.core.evidence import Usage
from vqdoctor.core.levels import Confidence


def evaluate(usage: Usage, limits: CheckLimits) -> Problems:
    """Ask whether one code alone makes the usage poor."""
    rest = usage.rest_perplexity
    if rest is not None and _usage.one_stands_out(usage):
        yield warning(
            f"One code takes {percent(usage.max_share)} of the vectors and the others are used evenly "
            f"(perplexity {figure(rest)} without it): it may be padding, silence or a masked value.",
            measured("max_share", usage.max_share),
            measured("perplexity", usage.perplexity, unit="codes"),
            measured("rest_perplexity", rest, unit="codes"),
            confidence=Confidence.MEDIUM,
            decide_with="--mask KEY" if usage.source == "batch" else "--data batch.npz --mask KEY",
        )


CHECK = Check(
    code="VQ511",
    name="one-code-stands-out",
    evaluate=evaluate,
    limits=CheckLimits(),
    advice=Advice(
        name="mask-padding",
        how="Pass the mask of the real positions to the VQ layer, and average the losses over these.",
        code="z_q, indices, vq_loss = vq(z_e, mask=mask)   # [B, T], True for data\n"
        "task = (error * mask).sum() / mask.sum()",
        names=("vq", "z_q, indices, vq_loss"),
    ),
    examples=(
        fires("81 % padding on one code", PADDED_USAGE),
        passes("healthy", Usage.healthy()),
        passes("a collapse", COLLAPSED_USAGE),
        passes(
            "a background that takes much, in a layer that works all the same",
            Usage.healthy(max_share=0.3, rest_perplexity=190.0),
        ),
    ),
    doc=__doc__,
)
