"""How often each code is chosen, most used first, beside the uniform share and the zone of dead codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vqdoctor.core.evidence import Usage
from vqdoctor.core.report import Report
from vqdoctor.plots._plot import BLUE, GREEN, PURPLE, VERMILLION, Drawing, Plot
from vqdoctor.plots._words import FROM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = tuple[str, tuple[float, ...]]
"""A source and its codes' shares as multiples of 1/K, most used first."""


MOST = 256
"""Codes of a whole histogram that are shown, evenly spaced."""


def drawings(report: Report, layer: str | None) -> Iterator[Drawing]:
    """Yield the sorted usage by every source that has one."""
    usages = report.usages(layer or "")
    lines = [(FROM[usage.source], shares) for usage in usages.values() if (shares := _shares(usage))]
    if not lines:
        return
    dead = next(iter(usages.values())).active_share
    longest = max(len(shares) for _, shares in lines)
    columns = [(*shares, *[None] * (longest - len(shares))) for _, shares in lines]
    rows = ((100 * i / max(1, longest - 1), *row) for i, row in enumerate(zip(*columns, strict=True)))
    yield Drawing(
        title="Usage of the codes",
        caption=f"Codes from the most used to the least used. At the dashed line all are used alike; under "
        f"{dead:g} of it a code is dead.",
        head=("codes [%]", *(f"times the uniform share 1/K, {source}" for source, _ in lines)),
        rows=tuple(rows),
        draw=lambda panel: _draw(panel, lines, dead),
    )


def _shares(usage: Usage) -> tuple[float, ...]:
    counts = sorted(usage.histogram or usage.count_quantiles, reverse=True)
    largest = counts[0] if counts else 0.0
    if not largest > 0:
        return ()
    # The quantiles do not add up to the whole: the largest count has the share that is known.
    factor = usage.max_share * usage.num_codes / largest
    return tuple(count * factor for count in counts[:: max(1, len(counts) // MOST)])


def _draw(panel: Axes, lines: list[Line], dead: float) -> None:
    forms = ((BLUE, "-"), (GREEN, "--"), (PURPLE, ":"))
    for (source, shares), (color, style) in zip(lines, forms, strict=False):
        at = [100 * i / max(1, len(shares) - 1) for i in range(len(shares))]
        panel.plot(at, shares, color=color, linestyle=style, drawstyle="steps-mid", label=source)
        panel.fill_between(at, shares, color=color, alpha=0.15, step="mid", linewidth=0)
    panel.axhline(1.0, color=VERMILLION, linestyle=(0, (4, 3)), linewidth=1.2, label="uniform")
    panel.axhspan(0, dead, color=VERMILLION, alpha=0.15, linewidth=0, label="dead")
    panel.set_yscale("symlog", linthresh=dead)
    top = max(3.0, *(shares[0] for _, shares in lines))
    panel.set(xlabel="codes, most used first [%]", ylabel="times the uniform share", ylim=(0, top * 1.6))
    ticks = [0.0, dead, *(10.0**power for power in range(0, 7) if 10.0**power <= top * 1.6)]
    panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    panel.set_yticks([], minor=True)
    panel.set_xlim(0, 100)
    panel.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=4, handlelength=1.4, columnspacing=0.9)


PLOT = Plot(name="usage", place=10, drawings=drawings)
