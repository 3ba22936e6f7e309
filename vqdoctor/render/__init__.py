"""The formats of the report: one file each, found by scanning this package."""

import importlib
import pkgutil
import sys
from functools import cache

from vqdoctor.core.discovery import pieces
from vqdoctor.render._ablation import (
    ablation_csv,
    ablation_json,
    ablation_markdown,
    ablation_text,
    costs_csv,
)
from vqdoctor.render._comparison import COMPARISON_FORMATS
from vqdoctor.render._renderer import Renderer, RenderOptions
from vqdoctor.render._text import printable
from vqdoctor.render._trace import board, event_line, news_line
from vqdoctor.render._variants import VARIANT_FORMATS

__all__ = [
    "COMPARISON_FORMATS",
    "VARIANT_FORMATS",
    "RenderOptions",
    "Renderer",
    "ablation_csv",
    "ablation_json",
    "ablation_markdown",
    "ablation_text",
    "all_renderers",
    "board",
    "costs_csv",
    "event_line",
    "format_names",
    "news_line",
    "printable",
    "renderer_of",
]


@cache
def all_renderers() -> dict[str, Renderer]:
    """Return every renderer by its name."""
    return {r.name: r for r in pieces(sys.modules[__name__], "RENDERER", Renderer)}


@cache
def format_names() -> tuple[str, ...]:
    """Return the names of all formats without importing one: a format is called as its module."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def renderer_of(name: str) -> Renderer:
    """Return the renderer of that name, one of `format_names()`, and import no other."""
    renderer = importlib.import_module(f"{__name__}.{name}").RENDERER
    assert isinstance(renderer, Renderer)
    return renderer
