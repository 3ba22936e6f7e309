"""Look at single positions.

An average over positions turns poor codes into a good accuracy, so a collapse is only seen where it
is not averaged away. The collapse itself is mended by the remedies of the causes.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="check-per-position",
    stage=Stage.DOWNSTREAM,
    safety=Safety.ADVICE,
    addresses=("VQ601",),
    how="Report entropy, usage and accuracy per position beside the averaged figures, and stop early on "
    "those.",
    code="for p in range(positions):\n    report(p, entropy(indices[:, p]), usage(indices[:, p]))",
    doc=__doc__,
)
