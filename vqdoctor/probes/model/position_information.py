"""How much one position's code tells about the label, against what all positions tell together."""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.evidence import Evidence, PositionInformation, Unavailable
from vqdoctor.metrics.calibration import accuracy, chance_accuracy
from vqdoctor.metrics.information import (
    conditional_entropy_bits,
    entropy_bits,
    held_out_accuracy,
    mutual_information,
)
from vqdoctor.models.task import Split
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe

SPLIT: Split = "val"


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield, for every layer whose codes can be matched to labels, what single positions carry."""
    scored = context.scored.get(SPLIT)
    measured = {}
    for name, codes in context.codes(SPLIT).items():
        if scored is None or scored.labels is None or scored.logits is None:
            continue
        if codes.shape[0] != len(scored.labels) or codes.shape[1] < 2 or codes.min() < 0:
            continue
        measured[name] = PositionInformation(
            layer=name,
            source="batch",
            sample_size=codes.size,
            positions=codes.shape[1],
            code_information=mutual_information(codes, scored.labels, context.seed),
            label_entropy=entropy_bits(scored.labels),
            code_accuracy=held_out_accuracy(codes, scored.labels, seed=context.seed),
            pooled_accuracy=accuracy(scored.logits, scored.labels),
            chance_accuracy=chance_accuracy(scored.labels),
            code_entropy=conditional_entropy_bits(codes),
        )
    yield from by_layer(
        context, PositionInformation, measured, "there are no labels, or only one position", by_gradient=False
    )


PROBE = Probe(kinds=(PositionInformation,), measure=measure, mode="eval", needs_codebook=False)
