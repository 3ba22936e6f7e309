"""Let the codebook change in training only.

`model.eval()` switches nothing but `self.training`: an EMA, a k-means initialisation or a replacement of
codes in the forward pass has to ask for it, and `torch.no_grad()` does not stop a write to a buffer.
Evaluate under `model.eval()`, and put the model back into train mode afterwards.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="guard-by-training",
    stage=Stage.INITIALISATION,
    safety=Safety.ADVICE,
    addresses=("VQ307",),
    how="Update the codebook, its EMA counts and sums, and its flags in train mode only.",
    code="if vq.training:   # self.training, in the layer's forward\n"
    "    vq.ema_cluster_size.lerp_(counts, 1 - decay)",
    doc=__doc__,
)
