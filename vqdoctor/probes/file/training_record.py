"""Which weights, decay, epochs and rates the file records of its training."""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.evidence import Evidence, TrainingRecord, Unavailable
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Missing, Probe


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield the record, or the reason why there is none: an empty one would be misleading."""
    if context.saved.record.sample_size:
        yield context.saved.record
    else:
        hint = "save epoch, step and config (vq_weight, commitment_weight, decay, batch_size) with the model"
        missing = Missing("the file records no setting of its training", hint)
        yield missing.gap(TrainingRecord, None, "checkpoint")


PROBE = Probe(kinds=(TrainingRecord,), measure=measure, needs_codebook=False, of_model=True)
