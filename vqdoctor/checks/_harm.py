"""How much of the model's success is lost with the codes, against the vectors that they replace."""

from __future__ import annotations

import math

from vqdoctor.core.evidence import TaskMetrics
from vqdoctor.core.levels import Severity

LOST = 0.2
"""Largest share of the skill with z_e that may be lost with the codes. Healthy digit models lost at most
0.006 of their accuracy and 0.014 of their reconstruction, codecs of waves 0.003; a classifier of sequences
lost 0.15 with 16 codes and 0.44 with 8, models whose codes had collapsed all of it."""
ERRORS = 3.0
"""Least size of a gap in accuracy, in standard errors of a difference of two accuracies."""


def severity(metrics: TaskMetrics | None) -> Severity:
    """Return how bad a cause is by what it cost: an error where the codes lose the task."""
    return Severity.ERROR if metrics is not None and _is_lost(metrics) else Severity.WARNING


def is_gap(metrics: TaskMetrics, errors: float = ERRORS) -> bool:
    """Whether the accuracy with z_e exceeds that with the codes by more than chance makes of this sample."""
    with_codes, without = metrics.accuracy, metrics.bypass_accuracy
    if with_codes is None or without is None:
        return False
    noise = math.sqrt((with_codes * (1 - with_codes) + without * (1 - without)) / max(metrics.sample_size, 1))
    return without - with_codes > errors * noise


def _is_lost(metrics: TaskMetrics) -> bool:
    """Compare accuracies above chance where there are any, else the losses below that of one mean code."""
    if metrics.accuracy is not None and metrics.bypass_accuracy is not None and metrics.chance_accuracy:
        skill = metrics.bypass_accuracy - metrics.chance_accuracy
        return skill > 0 and is_gap(metrics) and metrics.bypass_accuracy - metrics.accuracy > LOST * skill
    if not metrics.bypass_loss:  # a loss of exactly 0 shows that what was bypassed is the model itself
        return False
    gained = metrics.mean_code_loss - metrics.bypass_loss
    return gained > 0 and metrics.loss - metrics.bypass_loss > LOST * gained
