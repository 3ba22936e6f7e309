"""A layer's codes before and after a fix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vqdoctor.core.picture import FAINT
from vqdoctor.core.report import Report
from vqdoctor.plots._plot import BLUE, VERMILLION, Drawing, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES = ("perplexity", "active", "used", "dead", "copies", "off_their_sums", "non_finite")
"""The figures of a repair that count codes."""

Row = tuple[str, float, float]
"""A figure, before and after."""


def drawings(report: Report, layer: str | None) -> Iterator[Drawing]:
    """Yield the figures of the layer's repairs, the first value before and the last one after."""
    applied = [one for one in report.repairs if one.layer == layer and one.status == "applied"]
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    for repair in applied:
        before |= {name: value for name, value in repair.before.items() if name not in before}
        after |= repair.after
    both = [name for name in FIGURES if name in before and name in after]
    rows = [(name.replace("_", " "), before[name], after[name]) for name in both]
    if not rows:
        return
    yield Drawing(
        title="Before and after the fix",
        caption=f"By {', '.join(dict.fromkeys(repair.remedy for repair in applied))}.",
        head=("figure", "before [codes]", "after [codes]"),
        rows=tuple(rows),
        draw=lambda panel: _draw(panel, rows),
        height=1.3 + 0.35 * len(rows),
    )


def _draw(panel: Axes, rows: list[Row]) -> None:
    for i, (_, before, after) in enumerate(rows):
        label = i == 0
        panel.plot([before, after], [i, i], color=FAINT, linewidth=3, alpha=0.5)
        panel.plot([before], [i], "o", color=VERMILLION, label="before" if label else "")
        panel.plot([after], [i], "D", color=BLUE, label="after" if label else "")
    panel.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    panel.set(xlabel="codes", ylim=(len(rows) - 0.5, -0.5))
    panel.set_xlim(left=0)
    panel.grid(False, axis="y")
    panel.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=2)


PLOT = Plot(name="repairs", place=5, drawings=drawings)
