"""Pickled globals that are neither tensors nor plain containers."""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.checkpoint.pickles.known import is_known
from vqdoctor.core.evidence import Evidence, ForeignObjects, Unavailable
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Probe


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield the names that the reader left inert."""
    inert, dangerous = context.checkpoint.harmless, context.checkpoint.dangerous
    yield ForeignObjects(
        source="checkpoint",
        sample_size=len(inert) + len(dangerous),
        harmless=tuple(name for name in inert if is_known(name)),
        unknown=tuple(name for name in inert if not is_known(name)),
        dangerous=tuple(dangerous),
    )


PROBE = Probe(kinds=(ForeignObjects,), measure=measure, needs_codebook=False, of_model=True)
