"""Take weight decay off the codebook.

A code that is not chosen gets no gradient, so that weight decay alone moves it: towards zero, away from the
data. Adam's L2 form (`torch.optim.Adam(weight_decay=…)`) divides the decay by its own size, which makes it
full steps of the learning rate, however small the decay is. Weight decay is meant for weights that multiply
activations. Codes that have already shrunk need a revival as well.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Give the codebooks a parameter group of their own without weight decay."""
    return replace(current, exempt_codebook=True)


REMEDY = Remedy(
    name="exempt-codebook",
    stage=Stage.INITIALISATION,
    how="Give the codebook a parameter group of its own with weight decay 0, and use AdamW, not Adam.",
    code="rest = [p for p in model.parameters() if p is not parameter]\n"
    'groups = [{"params": rest}, {"params": [parameter], "weight_decay": 0.0}]\n'
    "optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.01)",
    names=("parameter",),
    doc=__doc__,
    plan=plan,
)
