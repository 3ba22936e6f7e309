"""Give the codes room for what the task needs.

Last in line: a codebook that is not in use does not get better by being larger, so mend the causes
first. Residual levels add the most for their cost: Q levels of K codes have K to the power of Q
combinations. Train the same model once without the VQ layer, to know what there is to gain.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="more-capacity",
    stage=Stage.DOWNSTREAM,
    safety=Safety.ADVICE,
    addresses=("VQ605",),
    how="Use more codes, more positions, or a second residual level, and compare with the same model "
    "trained without the VQ layer.",
    code="first = vq_1(z_e)\nz_q = first + vq_2(z_e - first.detach())   # a second level",
    doc=__doc__,
)
