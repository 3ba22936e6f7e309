"""Shuffle the training data.

Codes move only when they are chosen: while the batches in a row hold one kind of sample, all other codes are
left behind, and the encoder forgets likewise. A retraining draws the samples of as many batches as memory
holds anew for every epoch. Batches whose samples do not fit together, as sequences of many lengths, only
change places. The source needs a loader that shuffles all the same.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Draw the samples of the train batches anew for every epoch."""
    return replace(current, shuffled=True)


REMEDY = Remedy(
    name="shuffle",
    stage=Stage.SCHEDULE,
    how="Shuffle the training data anew for every epoch.",
    code="loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)",
    doc=__doc__,
    plan=plan,
)
