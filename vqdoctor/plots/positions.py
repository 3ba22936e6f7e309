"""Which codes are chosen at which positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vqdoctor.core.evidence import PositionUse
from vqdoctor.core.picture import INK
from vqdoctor.core.report import Report
from vqdoctor.plots._plot import Drawing, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAP = "viridis"
"""A colour map whose lightness grows evenly, so that it can be read without colours."""
LEVELS = 10
"""Colours of it: a scale of so few is drawn as shapes, and not as an image."""


def drawings(report: Report, layer: str | None) -> Iterator[Drawing]:
    """Yield the map of the most used codes over the positions."""
    found = report.find(PositionUse, layer)
    bins, codes = (0, 0) if found is None else (len(found.perplexity), len(found.codes))
    if found is None or not codes or len(found.shares) != bins * codes:
        return
    table = [[found.shares[i * codes + j] for i in range(bins)] for j in range(codes)]
    step = found.bin_size
    ends = ((i * step, min(found.positions, (i + 1) * step) - 1) for i in range(bins))
    names = [str(first) if first == last else f"{first}–{last}" for first, last in ends]
    grid = f", {found.grid[0]} × {found.grid[1]} row by row" if len(found.grid) == 2 else ""
    listed = f"{codes} most used codes" if codes > 1 else "only code in use"
    yield Drawing(
        title="Codes over positions",
        caption=f"The {listed} at the {found.positions:,} positions of a sample{grid}. The "
        "colour is a code's share of the choices there; above is the perplexity of each position. A code "
        "that fills a column is chosen there for any input.",
        head=("position", "perplexity [codes]", *(f"code {code}" for code in found.codes)),
        rows=tuple((name, found.perplexity[i], *(row[i] for row in table)) for i, name in enumerate(names)),
        draw=lambda panel: _draw(panel, found, table),
        height=3.4,
    )


def _draw(panel: Axes, found: PositionUse, table: list[list[float]]) -> None:
    from matplotlib import colormaps

    bins, codes = len(table[0]), len(table)
    mesh = panel.pcolormesh(table, cmap=colormaps[MAP].resampled(LEVELS), vmin=0.0)
    panel.invert_yaxis()
    rows = range(0, codes, max(1, codes // 8))
    panel.set_yticks([row + 0.5 for row in rows], [str(found.codes[row]) for row in rows])
    columns = range(0, bins, max(1, bins // 8))
    panel.set_xticks([i + 0.5 for i in columns], [str(i * found.bin_size) for i in columns])
    panel.set(xlabel="position", ylabel="code, most used first")
    panel.grid(False)
    assert panel.figure is not None
    bar = panel.figure.colorbar(mesh, ax=panel, pad=0.02)
    bar.ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
    above = panel.inset_axes((0, 1.04, 1, 0.22), sharex=panel)
    above.bar([i + 0.5 for i in range(bins)], found.perplexity, width=0.8, color=INK, alpha=0.55)
    above.tick_params(labelbottom=False)
    above.set_ylabel("perpl.", fontsize=8)
    above.tick_params(axis="y", labelsize=8)


PLOT = Plot(name="positions", place=50, drawings=drawings)
