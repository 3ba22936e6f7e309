"""The gradients along the network, with the VQ layers marked: where do they stop?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vqdoctor.core.evidence import GradientProfile
from vqdoctor.core.picture import FAINT
from vqdoctor.core.printable import printable
from vqdoctor.core.report import Report
from vqdoctor.plots._plot import BLUE, VERMILLION, Drawing, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST = 18
"""Letters of a module's name on the axis."""
MOST_NAMES = 14
"""Names on the axis."""
FLOOR = 1e-3
"""A gradient of 0 is drawn at this share of the smallest other one."""

Row = tuple[str, bool, float, float | None]
"""A module, whether it is a VQ layer, and the gradients of the task loss and the VQ loss."""


def drawings(report: Report, layer: str | None) -> Iterator[Drawing]:
    """Yield the profile of the model."""
    found = report.find(GradientProfile, layer)
    if found is None:
        return
    vq = (*found.vq, *[None] * len(found.modules))
    rows: list[Row] = list(zip(found.modules, found.is_vq, found.task, vq, strict=False))
    if not rows:
        return
    known = found.vq_weight is not None
    name = f"VQ loss × {found.vq_weight:g}" if known else "VQ loss, unweighted"
    yield Drawing(
        title="Gradients along the network",
        caption="Root mean square gradient of each module's parameters on one training batch, in the order "
        "in which the modules run. A task loss that stops at the VQ layer does not train the encoder.",
        head=("module", "kind", "task loss", name),
        rows=tuple((module, "VQ layer" if is_vq else "module", *grads) for module, is_vq, *grads in rows),
        draw=lambda panel: _draw(panel, rows, name),
    )


def _draw(panel: Axes, rows: list[Row], name: str) -> None:
    positive = [grad for row in rows if not row[1] for grad in row[2:] if grad]
    floor = min(positive, default=1.0) * FLOOR
    for of, label, color, style in ((2, "task loss", BLUE, "o-"), (3, name, VERMILLION, "s--")):
        line = [(i, row[of]) for i, row in enumerate(rows) if not row[1] and row[of] is not None]
        if line:
            at = [max(float(grad or 0.0), floor) for _, grad in line]
            panel.plot([i for i, _ in line], at, style, color=color, markersize=4, label=label)
    for number, i in enumerate(i for i, row in enumerate(rows) if row[1]):
        panel.axvline(i, color=FAINT, linewidth=8, alpha=0.45, label="VQ layer" if number == 0 else "")
    panel.set_yscale("log")
    panel.set_ylim(floor / 2, max(positive, default=1.0) * 5)
    lower, upper = panel.get_ylim()
    ticks = [tick for tick in panel.get_yticks() if floor * 5 < tick < upper and tick > lower]
    panel.set_yticks([floor, *ticks], ["0", *(f"{tick:.0e}".replace("e-0", "e-") for tick in ticks)])
    panel.set_yticks([], minor=True)
    step = -(-len(rows) // MOST_NAMES)
    shown = [i for i, row in enumerate(rows) if row[1] or (i % step == 0 and not _beside_vq(rows, i, step))]
    panel.set_xticks(shown, [_short(rows[i][0]) for i in shown], rotation=45, ha="right", fontsize=8)
    panel.set(ylabel="root mean square gradient")
    panel.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=3, handlelength=1.6, columnspacing=1.0)


def _beside_vq(rows: list[Row], place: int, step: int) -> bool:
    return step > 1 and any(row[1] for row in rows[max(0, place - 1) : place + 2])


def _short(name: str) -> str:
    text = printable(name)
    return text if len(text) <= LONGEST else f"…{text[-LONGEST:]}"


PLOT = Plot(name="gradient", place=10, of_model=True, drawings=drawings)
