"""A picture of a report: drawn in `plots`, shown in `render`, and between them plain values."""

from __future__ import annotations

from vqdoctor.core.frozen import frozen

Cell = str | int | float | None
"""One cell of a table; None is unknown."""

INK, FAINT, PAPER = "#1f2328", "#8a9199", "#fefefe"
"""The colours of text and axes, of lines behind the data, and of the ground.

They have no other use in a picture, so that a page in dark mode can replace them by its own colours.
"""


@frozen
class Picture:
    """One picture, and the table behind it.

    Attributes:
        name: its kind, "usage".
        layer: the VQ layer that it is about; None for the whole model.
        title: its content.
        caption: how to read it, as sentences.
        head: the columns of the table, with their units.
        rows: the rows of the table.
        svg: the picture as an SVG element; "" where it could not be drawn.
        png: the same in pixels; empty where it was not asked for.
        gap: why it could not be drawn; "" where it was.
    """

    name: str
    layer: str | None
    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    svg: str = ""
    png: bytes = b""
    gap: str = ""
