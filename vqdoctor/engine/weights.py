"""Which of two factors makes the VQ loss too heavy or too light: the task's weight, or the layer's own."""

from __future__ import annotations

from vqdoctor.core.evidence import LossBalance, LossTerms, TrainingRecord
from vqdoctor.core.frozen import frozen
from vqdoctor.core.report import Report

LOWER_WEIGHT, RAISE_WEIGHT = "lower-vq-weight", "raise-vq-weight"


@frozen
class Weights:
    """The two factors of a layer's VQ loss.

    Attributes:
        task: the weight that the task gives the loss.
        own: the weight that the layer gives it before; 1 where that is unknown.
    """

    task: float
    own: float = 1.0

    def is_task_meant(self, remedy: str) -> bool:
        """Whether a remedy for the weight has to change the task's: it is further off than the layer's."""
        return {LOWER_WEIGHT: self.task > self.own, RAISE_WEIGHT: self.task < self.own}.get(remedy, False)


def weights_of(report: Report) -> dict[str, Weights]:
    """Return the weights of the layers of a report, of those whose task's weight is known."""
    record = report.find(TrainingRecord)
    found: dict[str, Weights] = {}
    for layer in report.layers:
        balance, terms = report.find(LossBalance, layer.name), report.find(LossTerms, layer.name)
        task = balance.vq_weight if balance else record.vq_weight if record else None
        own = terms.beta if terms and terms.beta is not None else record.commitment_weight if record else None
        if task is not None:
            found[layer.name] = Weights(task=task, own=1.0 if own is None else own)
    return found
