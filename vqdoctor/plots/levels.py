"""Several VQ layers side by side, such as the levels of a residual quantizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vqdoctor.core.evidence import LevelUse, Usage
from vqdoctor.core.report import Report
from vqdoctor.plots._plot import BLUE, GREEN, VERMILLION, Drawing, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 64
"""Layers that fit side by side."""


def drawings(report: Report, layer: str | None) -> Iterator[Drawing]:
    """Yield the usage of all layers that have one; none for a single layer."""
    named = [one.name for one in report.layers]
    usages = [(name, next(iter(report.usages(name).values()), None)) for name in named]
    known = [(name, usage) for name, usage in usages if usage is not None][:MOST]
    if layer is not None or len(known) < 2:
        return
    left = [found.left if (found := report.find(LevelUse, name)) else None for name, _ in known]
    yield Drawing(
        title="VQ layers side by side",
        caption="Perplexity with its 95 % interval and active codes, both as a share of K, and what the "
        "levels before leave of the input of the first.",
        head=("VQ layer", "perplexity [codes]", "95 % from", "to", "active codes", "K", "input left [share]"),
        rows=tuple(
            (name, u.perplexity, u.perplexity_low, u.perplexity_high, u.active, u.num_codes, rest)
            for (name, u), rest in zip(known, left, strict=True)
        ),
        draw=lambda panel: _draw(panel, [usage for _, usage in known], left),
    )


def _draw(panel: Axes, usages: list[Usage], left: list[float | None]) -> None:
    at = list(range(1, len(usages) + 1))
    shares = [100 * u.perplexity / u.num_codes for u in usages]
    low = [100 * (u.perplexity - min(u.perplexity_low, u.perplexity)) / u.num_codes for u in usages]
    high = [100 * (max(u.perplexity_high, u.perplexity) - u.perplexity) / u.num_codes for u in usages]
    panel.bar(at, shares, color=BLUE, width=0.7, alpha=0.85, label="perplexity / K")
    panel.errorbar(at, shares, yerr=(low, high), fmt="none", color=VERMILLION, linewidth=1.4)
    panel.plot(at, [100 * u.active / u.num_codes for u in usages], "s", color=GREEN, label="active / K")
    if rest := [(i, 100 * share) for i, share in zip(at, left, strict=True) if share is not None]:
        panel.plot(*zip(*rest, strict=True), "v:", color=VERMILLION, label="input left")
    panel.set(xlabel="VQ layer, in the order of the report", ylabel="share [%]", ylim=(0, 108))
    panel.set_xticks(at[:: max(1, len(at) // 12)])
    panel.grid(False, axis="x")
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, handlelength=1.4, columnspacing=1.0)


PLOT = Plot(name="levels", place=20, of_model=True, drawings=drawings)
