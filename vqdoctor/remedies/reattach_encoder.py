"""Reconnect the encoder with the task loss.

Look for `.detach()`, `torch.no_grad()`, a decoder that looks the codes up again from the indices, and
an encoder that was frozen for a first phase and never released.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="reattach-encoder",
    stage=Stage.GRADIENT,
    safety=Safety.ADVICE,
    addresses=("VQ102",),
    how="Remove the detach or no_grad between the encoder, the VQ layer and the loss, and feed the "
    "decoder z_q itself.",
    code="z_q, indices, vq_loss = vq(encoder(x))   # no no_grad, no detach\n"
    "out = decoder(z_q)                       # z_q, not codebook[indices]",
    doc=__doc__,
)
