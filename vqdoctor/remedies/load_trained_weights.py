"""Examine a checkpoint of a training that has run.

There is nothing to repair in a codebook that was never trained. Either the wrong file was given (saved at
step 0, or a model built anew without its weights), or the weights did not load: compare the names of the
file's tensors with the model's. A layer that initialises itself from data has to see a batch in train mode
before it is saved.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="load-trained-weights",
    stage=Stage.INITIALISATION,
    safety=Safety.ADVICE,
    addresses=("VQ306",),
    how="Give the checkpoint of a model that has been trained, and see that all of its tensors are loaded.",
    code="missing, unexpected = model.load_state_dict(state, strict=False)\n"
    "assert not missing and not unexpected, (missing, unexpected)",
    doc=__doc__,
)
