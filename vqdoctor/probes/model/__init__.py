"""Probes that run a model: torch, through `live`, on copies only."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from vqdoctor.core.discovery import pieces
from vqdoctor.core.evidence import (
    GradientPath,
    ImplicitLevels,
    LossBalance,
    PositionInformation,
    TaskGradient,
    Usage,
)
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.probe import Probe

__all__ = ["ModelContext", "all_probes", "probes_without_codebook"]

WITHOUT_CODEBOOK = (GradientPath, ImplicitLevels, LossBalance, PositionInformation, TaskGradient, Usage)
"""What can be told of a layer that has no codebook, such as FSQ."""


@cache
def all_probes() -> tuple[Probe[Any], ...]:
    """Return every probe of a model."""
    return pieces(sys.modules[__name__], "PROBE", Probe)


def probes_without_codebook() -> tuple[Probe[Any], ...]:
    """Return the probes that ask nothing of a codebook, for `ModelContext.others`."""
    return tuple(probe for probe in all_probes() if set(probe.kinds) <= set(WITHOUT_CODEBOOK))
