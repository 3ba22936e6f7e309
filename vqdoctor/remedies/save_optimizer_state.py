"""Save what a later examination will ask for.

The optimizer's moments tell a cut encoder from the other causes without model or data; the config
tells the weight of the VQ loss, the decay and the number of updates, which nothing else does.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="save-optimizer-state",
    stage=Stage.FILE,
    safety=Safety.ADVICE,
    addresses=("VQ903",),
    how="Next time save the optimizer's state, the epoch and the config beside the model.",
    code='config = {"vq_weight": 0.1, "decay": 0.99, "batch_size": 16}\n'
    'torch.save({"model": model.state_dict(), "epoch": epoch,\n'
    '            "optimizer": optimizer.state_dict(), "config": config}, path)',
    doc=__doc__,
)
