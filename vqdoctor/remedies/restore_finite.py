"""Find a file from before the accident.

NaN cannot be mended, only replaced. So that it does not come back: keep the distances in float32
(squared distances of vectors of size 20 in 256 dimensions are infinite in half precision), clip the
gradient, and stop a run at the first loss that is not finite.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="restore-finite",
    stage=Stage.FILE,
    safety=Safety.ADVICE,
    addresses=("VQ901",),
    how="Go back to the last file without NaN or infinite values, and run the quantizer in float32.",
    code="with torch.autocast(device_type, enabled=False):\n    z_q, indices, vq_loss = vq(z_e.float())",
    doc=__doc__,
)
