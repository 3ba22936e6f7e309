"""Train with the VQ loss.

It holds the encoder near the codes and, where no EMA does, moves the codes. Take the tensor that the layer
returns, not its `.item()` or `.detach()`. A layer that needs no such loss (FSQ, NSVQ) returns none. If your
training does add it and only the Task leaves it out, return it there as `vq`.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="add-vq-loss",
    stage=Stage.LOSS,
    safety=Safety.ADVICE,
    addresses=("VQ205",),
    how="Add the loss that the VQ layer returns to the training loss, with its graph and a weight above 0.",
    code="loss = task + 0.1 * vq   # no .item(), no .detach()",
    doc=__doc__,
)
