"""Keep single vectors from deciding a step.

The rotation trick multiplies a gradient by |z_q| / |z_e|, which has no bound where z_e is near zero, as in
residual levels whose input is already a code. A straight-through step (`rotation_trick=False`) has gain
one everywhere. Clipping keeps the direction of the spike; it limits the damage and does not mend the cause.
NaN has a first place: `torch.autograd.set_detect_anomaly(True)` names it.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="clip-gradients",
    stage=Stage.GRADIENT,
    safety=Safety.ADVICE,
    addresses=("VQ107",),
    how="Clip the norm of the gradients at every step, skip steps that are not finite, and pass the "
    "gradient straight through where the rotation trick makes the spikes.",
    code="norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
    "if torch.isfinite(norm):\n"
    "    optimizer.step()",
    doc=__doc__,
)
