"""Let every level take part in the training.

A dropout of levels draws how many are used; the largest draw has to be all of them. `randrange` leaves
its end out, and so does numpy's `integers`: `randrange(1, Q)` never trains the last level. A level that
gives one code although something is left to say may have been started far from its residuals: start it
from the residuals of a batch once the levels before it are in place. A level to which nothing is left
can go.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="train-every-level",
    stage=Stage.USAGE,
    safety=Safety.ADVICE,
    addresses=("VQ506",),
    how="Draw the number of levels up to and including the last one, and train on; or remove the level.",
    code="keep = random.randrange(1, num_levels + 1)   # 1 … Q: the end is left out\n"
    "for level in levels[:keep]:\n    z_q = z_q + level(residual)",
    doc=__doc__,
)
