"""The formats of the report: one file each, found by scanning this package."""

from __future__ import annotations

import sys
from functools import cache

from vqdoctor.core.discovery import pieces
from vqdoctor.render._renderer import Renderer, RenderOptions
from vqdoctor.render._text import printable

__all__ = ["RenderOptions", "Renderer", "all_renderers", "printable"]


@cache
def all_renderers() -> dict[str, Renderer]:
    """Return every renderer by its name."""
    return {r.name: r for r in pieces(sys.modules[__name__], "RENDERER", Renderer)}
