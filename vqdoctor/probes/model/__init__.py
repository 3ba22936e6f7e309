"""Probes that run a model: torch, through `live`, on copies only."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from vqdoctor.core.discovery import pieces
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.probe import Probe

__all__ = ["ModelContext", "all_probes"]


@cache
def all_probes() -> tuple[Probe[Any], ...]:
    """Return every probe of a model."""
    return pieces(sys.modules[__name__], "PROBE", Probe)
