"""Curves over the steps or epochs of a training, and the table behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vqdoctor.core.frozen import frozen
from vqdoctor.core.picture import INK, PAPER
from vqdoctor.core.printable import printable
from vqdoctor.plots._plot import Drawing, plain_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@frozen
class Line:
    """One line.

    Attributes:
        label: its name.
        points: step or epoch, and value.
        color: its colour.
        style: its form, as matplotlib writes it: "-", "--", "^".
        band: step or epoch, and the ends of the interval there, which is shaded.
    """

    label: str
    points: Sequence[tuple[float, float]]
    color: str
    style: str = "-"
    band: Sequence[tuple[float, float, float]] = ()


def curves(
    lines: Sequence[Line],
    *,
    title: str,
    caption: str,
    x: str,
    y: str,
    top: float | None = None,
    log: bool = False,
    part: str = "",
    marks: Mapping[float, str] | None = None,
) -> Drawing:
    """Return lines over a training as a drawing; those without a point are left out.

    Args:
        lines: the lines.
        title: the content of the drawing.
        caption: how to read it.
        x: the horizontal axis.
        y: the vertical axis, with its unit.
        top: the upper end of the vertical axis, which then begins at 0.
        log: whether the vertical axis is logarithmic.
        part: the drawing's name among those of its kind.
        marks: step or epoch to the name of what begins there, which is written along a line.
    """
    shown = [line for line in lines if line.points]
    columns = [dict(line.points) for line in shown]
    places = sorted({place for column in columns for place in column})

    def draw(panel: Axes) -> None:
        for line in shown:
            at, values = zip(*line.points, strict=True)
            panel.plot(at, values, line.style, color=line.color, markersize=4, label=printable(line.label))
            if line.band:
                places, low, high = zip(*line.band, strict=True)
                panel.fill_between(places, low, high, color=line.color, alpha=0.2, linewidth=0)
        for at_mark, name in (marks or {}).items():
            panel.axvline(at_mark, color=INK, linestyle=(0, (2, 2)), linewidth=1)
            panel.annotate(
                name,
                (at_mark, 0.98),
                (3, 0),
                xycoords=panel.get_xaxis_transform(),
                textcoords="offset points",
                rotation=90,
                va="top",
                fontsize=8,
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.5},
            )
        if log:
            plain_log(panel, "y")
        elif top is not None:
            panel.set_ylim(0, top)
        panel.set(xlabel=x, ylabel=y)
        panel.locator_params(axis="x", integer=True)
        columns = min(len(shown), 4 if sum(len(line.label) for line in shown) < 36 else 2)
        panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, columnspacing=1.0)

    return Drawing(
        title=title,
        caption=caption,
        head=(x, *(f"{line.label} [{y}]" if y else line.label for line in shown)),
        rows=tuple((place, *(column.get(place) for column in columns)) for place in places),
        draw=draw,
        part=part,
    )
