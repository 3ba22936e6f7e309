"""Probes of a checkpoint file: numpy alone. One file per kind of evidence."""

from __future__ import annotations

import sys

from vqdoctor.core.discovery import pieces
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Probe

__all__ = ["FileContext", "all_probes"]


def all_probes() -> tuple[Probe[FileContext], ...]:
    """Return the probes of this package, in the order of their modules' names."""
    return pieces(sys.modules[__name__], "PROBE", Probe)
