"""Probes of z_e and code indices that were dumped from any framework: numpy alone, no model needed."""

from __future__ import annotations

import sys

from vqdoctor.core.discovery import pieces
from vqdoctor.probes.dump._context import DumpContext
from vqdoctor.probes.probe import Probe

__all__ = ["DumpContext", "all_probes"]


def all_probes() -> tuple[Probe[DumpContext], ...]:
    """Return the probes of this package, in the order of their modules' names."""
    return pieces(sys.modules[__name__], "PROBE", Probe)
