"""The layer chooses the code that is farthest away.

## Why it matters
The search for a code takes the smallest distance, or the largest similarity. With an argmax over distances,
or an argmin over similarities, every vector gets the worst code of the table. The codes are pulled towards
vectors that are far from them, until another code is the farthest: a few codes on the rim of the data take
turns.

## How to read it
With a model and data: the share of the choices that are the code farthest from the vector that the layer
looks up. A search by the largest product or the nearest direction may take far codes where their lengths
differ, so choices that either explains are not judged. Nor is a layer that puts out other codes than it
stores, since a map of the table may turn it round.

## Remedy
nearest-code: `argmin` over distances, `argmax` over similarities.

## References
- van den Oord et al. 2017, arXiv:1711.00937, equation 1: the nearest code
"""

from vqdoctor.checks._words import Problems, error, measured, percent
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodeChoice


class Limits(CheckLimits):
    """When choices count as the farthest."""

    farthest: float = limit(
        0.9,
        "Least share of the choices that are the farthest code. A search by distance takes it for no vector, "
        "an argmax over distances for all up to rounding.",
    )


def evaluate(choice: CodeChoice, limits: Limits) -> Problems:
    """Compare the share of farthest codes with its limit."""
    if choice.farthest >= limits.farthest > max(choice.nearest, choice.product, choice.direction):
        yield error(
            f"{percent(choice.farthest)} of the vectors get the code that is farthest from them: the search "
            "takes the largest distance, or the smallest similarity.",
            measured("farthest", choice.farthest, limits.farthest),
            measured("nearest", choice.nearest),
        )


CHECK = Check(
    code="VQ112",
    name="farthest-code-chosen",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="nearest-code",
        how="Take the smallest distance, or the largest similarity.",
        code="indices = torch.cdist(z_e, codebook).argmin(-1)",
    ),
    explained_by=("VQ901",),
    examples=(
        fires(
            "an argmax over distances",
            CodeChoice.healthy(nearest=0.0, farthest=1.0, product=0.0, direction=0.0),
        ),
        passes("the nearest code", CodeChoice.healthy()),
        passes("the largest product", CodeChoice.healthy(nearest=0.1, farthest=0.95, product=1.0)),
        passes("the nearest direction", CodeChoice.healthy(nearest=0.0, farthest=0.95, direction=1.0)),
        passes("two equal codes", CodeChoice.healthy(nearest=1.0, farthest=1.0, product=1.0)),
    ),
    doc=__doc__,
)
