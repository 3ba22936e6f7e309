"""How hard the task loss and the VQ loss pull at z_e."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vqdoctor.core.evidence import LossBalance
from vqdoctor.core.report import Report
from vqdoctor.plots._plot import BLUE, VERMILLION, Drawing, Plot, plain_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def drawings(report: Report, layer: str | None) -> Iterator[Drawing]:
    """Yield the two pulls at the layer's input."""
    found = report.find(LossBalance, layer)
    if found is None:
        return
    known = found.vq_weight is not None
    weight = found.vq_weight if found.vq_weight is not None else 1.0
    name = f"VQ loss × {weight:g}" if known else "VQ loss, unweighted"
    pulls = (("task loss", found.task_gradient), (name, abs(weight) * found.vq_gradient))
    about = "" if known else " The weight of the VQ loss in the training is unknown."
    yield Drawing(
        title="Balance of the losses at z_e",
        caption=f"The norm of each loss's gradient at z_e, in train mode.{about}",
        head=("loss", "gradient norm at z_e", "loss, unweighted"),
        rows=tuple((*pull, loss) for pull, loss in zip(pulls, (found.task_loss, found.vq_loss), strict=True)),
        draw=lambda panel: _draw(panel, pulls),
        height=1.9,
    )


def _draw(panel: Axes, pulls: tuple[tuple[str, float], ...]) -> None:
    known = [pull for _, pull in pulls if pull > 0]
    least, most = min(known, default=1e-3), max(known, default=1.0)
    plain_log(panel, "x")
    panel.set_xlim(least / 10, most * 20)
    for row, ((_, pull), color) in enumerate(zip(pulls, (BLUE, VERMILLION), strict=True)):
        panel.barh([row], [max(pull, least / 10)], color=color, height=0.6)
        panel.annotate(f" {pull:.3g}", (max(pull, least / 10), row), va="center")
    panel.set_yticks(range(len(pulls)), [name for name, _ in pulls])
    panel.set(xlabel="gradient norm at z_e", ylim=(1.6, -0.6))
    panel.grid(False, axis="y")


PLOT = Plot(name="loss-balance", place=40, drawings=drawings)
