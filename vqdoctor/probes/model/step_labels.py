"""How often each step of a sequence is named right: by the model, and by a table of its codes."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import StepLabels
from vqdoctor.metrics.calibration import accuracy, chance_accuracy
from vqdoctor.models.task import Split
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.probe import Missing

FIT: Split = "train"
SPLIT: Split = "val"


def measure(context: ModelContext) -> dict[str, StepLabels | Missing]:
    """Return the figures of every layer whose positions have a label each."""
    fit, scored = context.scored.get(FIT), context.scored.get(SPLIT)
    measured: dict[str, StepLabels | Missing] = {}
    if fit is None or scored is None or scored.labels is None or fit.labels is None or scored.logits is None:
        return measured
    for name, codes in context.codes(SPLIT).items():
        known = context.codes(FIT).get(name)
        if known is None or codes.shape[1] < 2 or codes.size != len(scored.labels):
            continue
        if known.size != len(fit.labels) or min(known.min(), codes.min()) < 0 or fit.labels.min() < 0:
            continue
        if context.is_same_data(SPLIT, FIT):
            measured[name] = Missing(
                "train and val are the same data, on which a table of codes is overfitted"
            )
            continue
        table = np.zeros((1 + max(known.max(), codes.max()), 1 + int(fit.labels.max())), dtype=np.int64)
        np.add.at(table, (known.ravel(), fit.labels), 1)
        measured[name] = StepLabels(
            source="batch",
            sample_size=len(codes),
            steps=codes.shape[1],
            accuracy=accuracy(scored.logits, scored.labels),
            code_accuracy=float((table.argmax(axis=1)[codes.ravel()] == scored.labels).mean()),
            chance_accuracy=chance_accuracy(scored.labels),
        )
    return measured


PROBE = each_layer(
    StepLabels,
    measure,
    "its positions have no label each",
    mode="eval",
    by_gradient=False,
)
