"""Make copies into codes of their own.

The copies are never chosen, but where they land they take vectors from other codes, so outputs may
change a little and the model should be trained on. Draw the new places without replacement, from at
least as many vectors as there are copies; otherwise new copies are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqdoctor.core.levels import Stage
from vqdoctor.remedies._remedy import Remedy

if TYPE_CHECKING:  # a remedy is shown without numpy
    from vqdoctor.layouts.layer_arrays import LayerArrays


def apply(layer: LayerArrays) -> str:
    """Move all but one of each group of equal codes."""
    from vqdoctor.remedies._places import relocate

    equal = layer.copies()
    if not equal.any():
        return "no two codes are equal"
    return "" if relocate(layer, equal) else "no code has two different vectors to share"


REMEDY = Remedy(
    name="spread-duplicates",
    stage=Stage.USAGE,
    changes_weights=True,
    how="Keep one of each group of equal codes and move the copies onto other encoder outputs.",
    code="near = torch.cdist(codebook, codebook) < 1e-3 * codebook.std()\n"
    "copies = near.triu(1).any(0)   # all but the first of each group\n"
    "codebook[copies] = z_e[torch.randperm(len(z_e))[: int(copies.sum())]]\n"
    "counts[copies] = 1.0; sums[copies] = codebook[copies]",
    names=("codebook", "counts", "sums"),
    doc=__doc__,
    apply=apply,
)
