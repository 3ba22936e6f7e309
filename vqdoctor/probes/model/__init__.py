"""Probes that run a model: torch, through `capture`, on copies only."""

from __future__ import annotations

import sys
from functools import cache

from vqdoctor.core.discovery import pieces
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model.data_match import asked_vectors
from vqdoctor.probes.probe import Probe

__all__ = ["ModelContext", "all_probes", "asked_vectors", "without_codebook"]


@cache
def all_probes() -> tuple[Probe[ModelContext], ...]:
    """Return every probe of a model."""
    return pieces(sys.modules[__name__], "PROBE", Probe)


def without_codebook(*, alone: bool) -> tuple[Probe[ModelContext], ...]:
    """Return the probes of layers that have no codebook, such as FSQ, for `ModelContext.others`.

    Where the model has no other VQ layers, those of the model as a whole look at these as well.
    """
    return tuple(
        probe for probe in all_probes() if not probe.needs_codebook and (alone or not probe.of_model)
    )
