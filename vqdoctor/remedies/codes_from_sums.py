"""Write each code as its EMA sum over its count, where something has overwritten the whole codebook.

Counts and sums stay as they are. A codebook whose rows differ is left alone: there the EMA and another writer
disagree on single codes, and reset-ema or a revival decides. In training code, keep the codebook as a float32
buffer that no optimizer and no cast to half precision reaches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqdoctor.core.levels import Stage
from vqdoctor.remedies._remedy import Remedy

if TYPE_CHECKING:  # a remedy is shown without numpy
    from vqdoctor.layouts.layer_arrays import LayerArrays


def apply(layer: LayerArrays) -> str:
    """Write all codes that have a count."""
    return layer.restore_from_sums()


REMEDY = Remedy(
    name="codes-from-sums",
    stage=Stage.INITIALISATION,
    how="Write each code as its EMA sum over its count, and keep the codebook out of the optimizer.",
    code="codebook.copy_(sums / counts.clamp_min(1e-5)[:, None])\nparameter.requires_grad_(False)",
    names=("codebook", "counts", "sums", "parameter"),
    doc=__doc__,
    apply=apply,
)
