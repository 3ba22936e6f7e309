"""Draw the training samples in a new random order each epoch.

A map-style data set needs nothing but `shuffle=True`; with several processes, a DistributedSampler whose
`set_epoch` is called. A stream of files needs a shuffle buffer that is larger than a file, and the files
themselves in random order, or it only mixes what was together anyway.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="shuffle",
    stage=Stage.SCHEDULE,
    safety=Safety.SAFE,
    addresses=("VQ403",),
    how="Shuffle the training data anew for every epoch.",
    code="loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)",
    doc=__doc__,
)
