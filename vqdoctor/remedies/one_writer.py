"""Let one of the two write the codebook.

With an EMA the codebook is a buffer, or requires no gradient. With an optimizer there is no EMA: in
vector-quantize-pytorch `ema_update=False, learnable_codebook=True`. A loss on the codes, such as an
orthogonality or diversity term, needs the optimizer. Assigning a new `nn.Parameter` in the forward pass
cuts the optimizer's hold as well: write into the old one, `weight.data.copy_(codes)`.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="one-writer",
    stage=Stage.GRADIENT,
    safety=Safety.ADVICE,
    addresses=("VQ104",),
    how="Let either the EMA or the optimizer write the codebook, and take it from the other.",
    code="codebook.requires_grad_(False)   # the EMA writes it, no optimizer",
    doc=__doc__,
)
