"""The search takes the code with the largest product, while the loss is a distance: long codes win.

## Why it matters
|z - e|^2 is |z|^2 - 2 z e + |e|^2, and only |z|^2 is the same for all codes. Without |e|^2 the smallest
"distance" is the largest product z e. It grows with the length of the code, so a code is chosen from afar for
its length, and a code inside the hull of the others is the first for no vector at all. The VQ loss pulls the
chosen codes out to their vectors, which makes them longer still; the rest is never chosen.

## How to read it
With a model and data: (nearly) all choices are the code with the largest product, a part of them is not the
nearest code, nor are they explained by the direction of the codes; and the gradient of the VQ loss at z_e is
that of a squared distance to the chosen code. All four are needed. Where the codes have one length, as on a
sphere, product, direction and distance choose the same. A layer that compares directions (cosine similarity)
leaves out the lengths on purpose, and a layer without such a loss may choose by product as it likes. A
layer that scales its input before the search has a loss of another form. Layers that choose by logits are
not judged.

## Remedy
length-term: keep |e|^2 in the distance. Or give all codes one length, and compare directions.

## References
- van den Oord et al. 2017, arXiv:1711.00937, equation 1: the nearest code
- Measured: a text autoencoder without |e|^2 used 9 of 128 codes at 0.73 of the characters right, and 22 at
  0.86 with it
"""

from vqdoctor.checks._words import Problems, measured, percent, warning
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodeChoice, LossTerms


class Limits(CheckLimits):
    """When choices count as those by the largest product."""

    product: float = limit(
        0.999,
        "Least share of the choices that have the largest product. A search by product has it for all up to "
        "rounding, and the direction must explain less.",
    )
    nearest: float = limit(
        0.98,
        "Largest share of the choices that are the nearest code as well. A search by distance takes it for "
        "all up to rounding, and one by product too where the codes have one length.",
    )


def evaluate(choice: CodeChoice, terms: LossTerms, limits: Limits) -> Problems:
    """Ask whether the product alone explains the choices, beside a loss that is a distance."""
    by_product = choice.product >= limits.product > max(choice.direction, choice.farthest)
    if by_product and choice.nearest < limits.nearest and terms.commitment is not None:
        yield warning(
            f"{percent(choice.product)} of the vectors get the code with the largest product, which is the "
            f"nearest for {percent(choice.nearest)}, while the VQ loss is a distance: the search leaves out "
            "the lengths of the codes, so long codes win.",
            measured("product", choice.product, limits.product),
            measured("nearest", choice.nearest, limits.nearest),
            measured("direction", choice.direction),
        )


CHECK = Check(
    code="VQ113",
    name="code-length-ignored",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="length-term",
        how="Keep the squared length of the code in the distance.",
        code="distances = codebook.square().sum(-1) - 2 * z_e @ codebook.T  # + |z_e|^2\n"
        "indices = distances.argmin(-1)",
    ),
    explained_by=("VQ901",),
    examples=(
        fires(
            "distances without the length of the code",
            CodeChoice.healthy(nearest=0.91, product=1.0, direction=0.89),
            LossTerms.healthy(),
        ),
        passes("the nearest code", CodeChoice.healthy(), LossTerms.healthy()),
        passes(
            "the nearest direction",
            CodeChoice.healthy(nearest=0.6, product=0.7, direction=1.0),
            LossTerms.healthy(),
        ),
        passes(
            "codes of one length",
            CodeChoice.healthy(nearest=1.0, product=1.0, direction=1.0),
            LossTerms.healthy(),
        ),
        passes(
            "a choice by product, and no loss that is a distance",
            CodeChoice.healthy(nearest=0.6, product=1.0, direction=0.7),
            LossTerms.healthy(commitment=None),
        ),
    ),
    doc=__doc__,
)
