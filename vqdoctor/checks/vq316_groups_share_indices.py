"""All groups of a product quantizer take the codes that the first group chose.

## Why it matters
Each group has a codebook and an input of its own. With the first group's indices the others put out codes
that have nothing to do with their input: their part of the vector is lost, and K codes are left of K to the
power of the groups. Usage looks as healthy as that of the first group.

## How to read it
With a model and data: the codes of this group have the same indices as those of the first, although other
codes are the nearest to its own input, and the first group's choices are the nearest to its own. Groups that
rightly choose alike, since their inputs and codebooks are equal, do not fire: there these are the nearest.

## Remedy
own-indices: look up every group in its own codebook.

## References
- Jegou et al. 2011, Product Quantization for Nearest Neighbor Search, section II.B: one index for each part
- Baevski et al. 2020, wav2vec 2.0, arXiv:2006.11477, section 2: one code from each of G codebooks
"""

from vqdoctor.checks._words import Problems, error, measured, percent
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import GroupChoice


class Limits(CheckLimits):
    """When indices count as shared, and as wrong."""

    same: float = limit(
        0.99, "Least share of the codes with the first group's index: all, up to a masked or a tied vector."
    )
    nearest: float = limit(
        0.9,
        "Largest share of the codes that may be the nearest where they count as another group's, and least "
        "share in the first group for it to be the source. A group's own lookup gives 1 up to rounding, that "
        "of another group about 1 / K at the start; a model that was trained so to the end had 0.43 to 0.50.",
    )


def evaluate(choice: GroupChoice, limits: Limits) -> Problems:
    """Fire on the groups after the first."""
    if (
        choice.group > 1
        and choice.same >= limits.same
        and choice.nearest <= limits.nearest <= choice.first_nearest
    ):
        yield error(
            f"Group {choice.group} of {choice.groups} takes the indices of group 1: {percent(choice.same)} "
            f"of them are equal, and {percent(choice.nearest)} are the code nearest to its own input.",
            measured("same", choice.same, limits.same),
            measured("nearest", choice.nearest, limits.nearest),
            measured("first_nearest", choice.first_nearest, limits.nearest),
        )


CHECK = Check(
    code="VQ316",
    name="groups-share-indices",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="own-indices",
        how="Look up every group in its own codebook.",
        code="indices = torch.cdist(parts, codebooks).argmin(-1)   # [groups, vectors]",
    ),
    explained_by=("VQ901",),
    examples=(
        fires("the first group's indices", GroupChoice.healthy(same=1.0, nearest=0.07)),
        passes("a lookup of its own", GroupChoice.healthy()),
        passes("equal groups", GroupChoice.healthy(same=1.0, nearest_same=1.0)),
        passes("the first group", GroupChoice.healthy(group=1, same=1.0, nearest=0.07)),
    ),
    doc=__doc__,
)
