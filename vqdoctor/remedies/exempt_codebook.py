"""Take the codebook out of the weight decay.

Weight decay is meant for weights that multiply activations. A code is a point in the data: pulled to zero
it leaves the data. The same holds for AdamW's default of 0.01 over a long training, and for any decay in
plain Adam, which turns it into full steps of the learning rate. Codes that have already shrunk come back
by a revival, not by the change alone.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="exempt-codebook",
    stage=Stage.INITIALISATION,
    safety=Safety.SAFE,
    addresses=("VQ308",),
    how="Give the codebook a parameter group of its own with weight decay 0, and use AdamW, not Adam.",
    code="rest = [p for p in model.parameters() if p is not codebook]\n"
    'groups = [{"params": rest}, {"params": [codebook], "weight_decay": 0.0}]\n'
    "optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.01)",
    doc=__doc__,
)
