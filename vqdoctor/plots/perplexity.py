"""The perplexity with its interval, and the codes in use, against the size of the codebook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vqdoctor.core.evidence import Usage
from vqdoctor.core.picture import INK
from vqdoctor.core.report import Report
from vqdoctor.plots._plot import BLUE, GREEN, VERMILLION, Drawing, Plot
from vqdoctor.plots._words import FROM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIMIT = "VQ501"
"""The check whose limit is drawn."""


def drawings(report: Report, layer: str | None) -> Iterator[Drawing]:
    """Yield the perplexity by every source that has one."""
    usages = [(FROM[usage.source], usage) for usage in report.usages(layer or "").values()]
    if not usages:
        return
    yield Drawing(
        title="Perplexity against K",
        caption="The codes in use, counted by how evenly they are used, with the 95 % interval. Active codes "
        f"are those above {usages[0][1].active_share:g}/K of the usage.",
        head=("usage", "perplexity [codes]", "95 % from", "to", "active codes", "codes used", "K", "vectors"),
        rows=tuple(
            (
                source,
                u.perplexity,
                u.perplexity_low,
                u.perplexity_high,
                u.active,
                u.used,
                u.num_codes,
                u.vectors,
            )
            for source, u in usages
        ),
        draw=lambda panel: _draw(panel, usages),
        height=1.5 + 0.55 * len(usages),
    )


def _draw(panel: Axes, usages: list[tuple[str, Usage]]) -> None:
    size = max(usage.num_codes for _, usage in usages)
    for row, (_, usage) in enumerate(usages):
        low, high = usage.perplexity_low, usage.perplexity_high
        first = row == 0
        panel.plot([low, high], [row, row], color=BLUE, linewidth=6, alpha=0.35, solid_capstyle="butt")
        panel.plot([usage.perplexity], [row], "o", color=BLUE, label="perplexity, 95 %" if first else "")
        side = "right" if usage.perplexity > size / 2 else "left"
        told = f" {usage.perplexity:.4g} [{low:.4g}–{high:.4g}] "
        panel.annotate(told, (usage.perplexity, row - 0.3), va="center", ha=side)
        for codes, form, color, width, label in (
            (usage.active, "s", GREEN, 5, "active"), (usage.used, "|", INK, 11, "used"),
        ):  # fmt: skip
            shown = label if first else ""
            panel.plot([max(1, codes)], [row], form, color=color, markersize=width, label=shown)
    panel.axvline(size, color=VERMILLION, linestyle=(0, (4, 3)), linewidth=1.2, label=f"K = {size:,}")
    panel.set_xlim(0, size * 1.04)
    panel.set_yticks(range(len(usages)), [source for source, _ in usages])
    panel.set(xlabel="codes", ylim=(len(usages) - 0.4, -0.6))
    panel.grid(False, axis="y")
    panel.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=4, handlelength=1.2, columnspacing=1.0)


PLOT = Plot(name="perplexity", place=20, drawings=drawings)
