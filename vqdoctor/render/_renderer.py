"""What a renderer is: one function from a report to text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vqdoctor.core.report import Report


@dataclass(frozen=True, kw_only=True)
class RenderOptions:
    """What the place that the text goes to can show.

    Attributes:
        width: columns.
        color: whether it understands colour.
        ascii: whether it can show nothing but ASCII.
    """

    width: int = 80
    color: bool = False
    ascii: bool = False


@dataclass(frozen=True, kw_only=True)
class Renderer:
    """One format. One file in `render/` defines one, as `RENDERER`.

    A renderer decides nothing: it only shows what the report says. Whatever comes from the
    examined file passes through `printable`, so that a hostile file cannot write on the terminal.

    Attributes:
        name: what `--format` calls it.
        suffix: what its files end in (".json").
        render: report and options in, text out, ending in a newline.
    """

    name: str
    suffix: str
    render: Callable[[Report, RenderOptions], str]
