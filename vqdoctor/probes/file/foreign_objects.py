"""Pickled globals that are neither tensors nor plain containers."""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.evidence import Evidence, ForeignObjects, Unavailable
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Probe


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield the names that the reader left inert."""
    harmless, dangerous = context.checkpoint.harmless, context.checkpoint.dangerous
    yield ForeignObjects(
        source="checkpoint",
        sample_size=len(harmless) + len(dangerous),
        harmless=tuple(harmless),
        dangerous=tuple(dangerous),
    )


PROBE = Probe(kinds=(ForeignObjects,), measure=measure, needs_codebook=False, of_model=True)
