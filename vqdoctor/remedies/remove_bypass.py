"""Make the model need its codes.

Look for skip connections from the encoder to the decoder, conditioning on the input or on labels, and
an autoregressive decoder that sees its own targets; drop these inputs out during training, or remove
them.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="remove-bypass",
    stage=Stage.DOWNSTREAM,
    safety=Safety.ADVICE,
    addresses=("VQ602",),
    how="Close the paths by which information gets around the VQ layer, or weaken the decoder's other "
    "inputs.",
    code="out = decoder(z_q)   # not decoder(z_q, skip), nor decoder(z_q, x)",
    doc=__doc__,
)
