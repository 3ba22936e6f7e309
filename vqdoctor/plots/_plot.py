"""One kind of picture: from a report to a drawing, and from that to SVG and PNG, the same bytes each time."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from vqdoctor.core.errors import MissingPackageError
from vqdoctor.core.frozen import frozen
from vqdoctor.core.picture import FAINT, INK, PAPER, Cell, Picture
from vqdoctor.core.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
"""Four of the colours of Okabe and Ito (2008), which colour-blind readers tell apart; these four have enough
contrast on white and on a dark ground. Where two lines meet, their form differs as well."""
WIDTH, HEIGHT = 4.9, 3.1
"""Inches of a picture: text of 10 points is then readable on a telephone's 390 pixels."""

_STYLE: dict[Any, object] = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, found and copied
    "svg.hashsalt": "vqdoctor",
    "text.parse_math": False,  # a layer may be called $x$
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.3,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}


_POINTS = re.compile(r'<g (clip-path="[^"]*")>((?:\s*<use [^<>]*/>)+)\s*</g>')
_LONG = re.compile(r"(\d\.\d\d)\d+")
"""A number with more decimals than two of a point, which no screen shows."""


@frozen
class Drawing:
    """The content of a picture, before it is drawn.

    Attributes:
        title: its content.
        caption: how to read it, as sentences.
        head: the columns of the table behind it, with their units.
        rows: the rows of the table.
        draw: draws it on axes.
        height: inches.
        part: its name among the drawings of its kind; "" for the only one.
    """

    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    draw: Callable[[Axes], None]
    height: float = HEIGHT
    part: str = ""


@frozen
class Plot:
    """One kind of picture. One file in `plots/` defines one, as `PLOT`.

    Attributes:
        name: its name, which begins the names of its files.
        place: its place among the pictures of a layer, or of the model.
        of_model: whether it shows the model as a whole, and not one layer.
        drawings: report and layer in, the drawings out; none where the report lacks the evidence.
    """

    name: str
    place: int
    of_model: bool = False
    drawings: Callable[[Report, str | None], Iterable[Drawing]]

    def pictures(self, report: Report, layer: str | None, *, png: bool = False) -> Iterator[Picture]:
        """Yield the pictures of a layer, or of the model; without matplotlib their tables alone."""
        for drawing in self.drawings(report, layer):
            yield picture(drawing, self.name, layer, png=png)


def picture(drawing: Drawing, kind: str, layer: str | None, *, png: bool) -> Picture:
    """Return a drawing as a picture; where it cannot be drawn, its table alone."""
    svg, pixels, gap = "", b"", ""
    try:
        svg, pixels = drawn(drawing, png=png)
    except MissingPackageError as error:
        gap = str(error)
    except (ValueError, ArithmeticError) as error:  # numbers of a file that no axis can hold
        gap = f"it cannot be drawn: {type(error).__name__}"
    return Picture(
        name=f"{kind}-{drawing.part}" if drawing.part else kind,
        layer=layer,
        title=drawing.title,
        caption=drawing.caption,
        head=drawing.head,
        rows=drawing.rows,
        svg=svg,
        png=pixels,
        gap=gap,
    )


def drawn(drawing: Drawing, *, png: bool) -> tuple[str, bytes]:
    """Return a drawing as an SVG element, and as PNG where asked for.

    Raises:
        MissingPackageError: if matplotlib is not installed.
    """
    with _figure(WIDTH, drawing.height) as figure:
        drawing.draw(figure.subplots())
        return _svg(figure), _png(figure) if png else b""


def panels(drawings: Sequence[Drawing], title: str) -> bytes:
    """Return several drawings as one PNG, two in a row, under a title.

    Raises:
        MissingPackageError: if matplotlib is not installed.
    """
    rows = -(-len(drawings) // 2)
    with _figure(2 * WIDTH, 0.4 + 1.1 * HEIGHT * rows) as figure:
        axes = figure.subplots(rows, 2, squeeze=False)
        for panel, drawing in zip(axes.flat, drawings, strict=False):
            drawing.draw(panel)
            panel.set_title(drawing.title, pad=_above(panel))
        for panel in axes.flat[len(drawings) :]:
            panel.set_axis_off()
        figure.suptitle(title)
        return _png(figure)


def _above(panel: Axes) -> float:
    """Return the room between a panel and its title, in points: that of two lines, or of its legend."""
    legend = panel.get_legend()
    height = 0.0 if legend is None else legend.get_window_extent().height * 72 / panel.figure.dpi
    return max(38.0, height + 8.0)


def _in_one_style(points: re.Match[str]) -> str:
    """Return a group of points with one style for all of them: the styles are most of its length."""
    styles = set(re.findall(r' style="[^"]*"', points[2]))
    if len(styles) != 1:
        return points[0]
    (style,) = styles
    return f"<g {points[1]}{style}>{points[2].replace(style, '')}</g>"


def plain_log(panel: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with few ticks that are plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis = panel.xaxis if which == "x" else panel.yaxis
    panel.set(**{f"{which}scale": "log"})
    axis.set_major_locator(LogLocator(numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


@contextlib.contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """Give an empty figure, in the style of all pictures.

    Raises:
        MissingPackageError: if matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError("matplotlib", "drawing", "plots") from error
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks, an axis with a single value
        yield Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
    return file.getvalue()


def _svg(figure: Figure) -> str:
    """Return the figure as an element of a page: without date, header and long numbers."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = _POINTS.sub(_in_one_style, text)
    return re.sub(r"<[^<>]+>", lambda tag: _LONG.sub(r"\1", tag[0]), text)  # the text between tags stays
