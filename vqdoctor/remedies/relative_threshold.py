"""Measure a code against the mean count, not against a fixed number.

The sum of the EMA counts is the number of vectors in a batch, so the mean count is vectors over K, and it
changes with the batch, the crop and the codebook. A tenth of it finds the codes that are hardly used, and
never all of them. More vectors a batch (a longer crop, more processes that share their counts) help too:
over the window of the EMA, (1 + d)/(1 - d) batches, every code should be due several times.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="relative-threshold",
    stage=Stage.SCHEDULE,
    safety=Safety.SAFE,
    addresses=("VQ402",),
    how="Replace codes whose EMA count is under a tenth of the mean count, instead of under a fixed number.",
    code="threshold_ema_dead_code = 0.1 * vectors_per_batch / num_codes",
    doc=__doc__,
)
