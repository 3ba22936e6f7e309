"""Save that the codebook was initialised, with the codebook itself.

A plain attribute is lost with the process; a buffer is part of the state dict. Load old checkpoints by
setting the flag by hand, once. `load_state_dict(strict=False)` passes over a flag that the file lacks, so
look at what it returns.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="save-init-flag",
    stage=Stage.INITIALISATION,
    safety=Safety.ADVICE,
    addresses=("VQ305",),
    how="Keep the flag of the data initialisation in a buffer, and set it for checkpoints that lack it.",
    code='vq.register_buffer("initted", torch.tensor(False))   # in __init__\n'
    "vq.initted.fill_(True)   # where the codebook has been initialised",
    doc=__doc__,
)
