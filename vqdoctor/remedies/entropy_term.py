"""Reward an even use of the codes.

The entropy of the mean soft assignment is added to the loss with a minus sign, so z_e spreads over codes
that are rarely chosen (the term H(E p) of Jansen et al. 2019 and of Yu et al. 2023, MAGVIT-v2). It asks for
an even use whether or not the task needs it, and may cost accuracy. `--trial` measures that price against
the same plan without it.
"""

from __future__ import annotations

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy

WEIGHT = 0.1
"""Of the entropy as a share of ln K: the weight that the tokenizer of MaskGIT gives its entropy loss."""


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Add the entropy of the usage to the loss."""
    return replace(current, entropy_weight=WEIGHT)


REMEDY = Remedy(
    name="entropy-term",
    stage=Stage.USAGE,
    how="Add the entropy of the mean soft assignment to the loss, with a minus sign and a small weight.",
    code=(
        "chosen = (-torch.cdist(z_e, codebook) ** 2 / scale).softmax(1).mean(0)\n"
        "entropy = torch.special.entr(chosen + 1e-9).sum() / math.log(num_codes)\n"
        "loss = loss - 0.1 * entropy"
    ),
    names=("codebook",),
    setting=("entropy", "0.1"),
    doc=__doc__,
    plan=plan,
    in_loss="sum",
)
