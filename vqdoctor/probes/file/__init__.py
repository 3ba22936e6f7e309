"""Probes of a checkpoint file: numpy alone. One file a kind of evidence."""

from __future__ import annotations

import sys

from vqdoctor.core.discovery import pieces
from vqdoctor.probes.file._context import ESTIMATED_COUNTS, FileContext
from vqdoctor.probes.probe import Probe
from vqdoctor.saved.optimizer import SavedOptimizer
from vqdoctor.saved.record import RETRAINED

__all__ = ["ESTIMATED_COUNTS", "RETRAINED", "FileContext", "SavedOptimizer", "all_probes"]


def all_probes() -> tuple[Probe[FileContext], ...]:
    """Return the probes of this package, in the order of their modules' names."""
    return pieces(sys.modules[__name__], "PROBE", Probe)
