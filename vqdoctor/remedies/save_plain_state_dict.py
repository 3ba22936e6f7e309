"""Save what any loader may read.

A file of plain values loads with `weights_only=True`, with other versions of the code, and in other
programs. A file that names functions which can run code should be deleted unless you wrote it.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="save-plain-state-dict",
    stage=Stage.FILE,
    safety=Safety.ADVICE,
    addresses=("VQ902",),
    how="Save tensors, numbers and strings only, and config objects as plain dicts.",
    code='torch.save({"model": model.state_dict(), "epoch": epoch,\n'
    '            "optimizer": optimizer.state_dict(),\n'
    '            "config": vars(args)}, path)',
    doc=__doc__,
)
