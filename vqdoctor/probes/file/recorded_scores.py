"""Which accuracy, cross-entropy and VQ losses the file records of its own model."""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.evidence import Evidence, RecordedScores, Unavailable
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Missing, Probe
from vqdoctor.saved.scores import rise


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield the record, or the reason why there is none: an empty one would be misleading."""
    scores = context.saved.scores
    if not scores.found:
        hint = "save val_acc and the losses of each epoch with the model"
        missing = Missing("the file records no accuracy and no loss", hint)
        yield missing.gap(RecordedScores, None, "checkpoint")
        return
    values, at = scores.vq_losses or ((), "")
    places = {
        name: found.where
        for name in ("accuracy", "cross_entropy", "classes")
        if (found := getattr(scores, name)) is not None
    }
    places |= {"vq_loss_rise": at} if at else {}
    yield RecordedScores(
        source="checkpoint",
        sample_size=scores.found,
        accuracy=scores.accuracy.value if scores.accuracy else None,
        cross_entropy=scores.cross_entropy.value if scores.cross_entropy else None,
        classes=int(scores.classes.value) if scores.classes else None,
        vq_loss_rise=rise(values),
        updates=context.saved.record.updates,
        found_at=tuple(f"{name}={where}" for name, where in places.items()),
    )


PROBE = Probe(kinds=(RecordedScores,), measure=measure, needs_codebook=False, of_model=True)
