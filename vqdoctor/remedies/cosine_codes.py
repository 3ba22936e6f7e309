"""Compare directions only.

With z_e and codes on the unit sphere neither can run away from the other, and no code wins by being
short (Yu et al. 2022, ViT-VQGAN). It changes the model: the source must do the same, else the retrained
file is read by a layer that compares distances.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Put z_e and the codes on the unit sphere."""
    return replace(current, geometry="sphere")


REMEDY = Remedy(
    name="cosine-codes",
    stage=Stage.INITIALISATION,
    how="Bring z_e and the codes to unit length before the lookup.",
    code="z_e = F.normalize(z_e, dim=-1)\ncodes = F.normalize(codebook, dim=-1)   # at every lookup",
    names=("codebook",),
    setting=("unit length", "True"),
    doc=__doc__,
    plan=plan,
    changes_model=True,
)
