"""Ending a pass through the model early."""

from __future__ import annotations


class Enough(BaseException):
    """Raised by a hook that has its answer, so that the rest of the pass is left out."""
