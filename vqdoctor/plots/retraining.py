"""A retraining: usage, accuracy and losses by epoch, and the codes' usage before and after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vqdoctor.core.printable import printable
from vqdoctor.core.report import Report
from vqdoctor.core.retraining import Figures, Retraining
from vqdoctor.plots._curves import Line, curves
from vqdoctor.plots._plot import BLUE, GREEN, PURPLE, VERMILLION, Drawing, Plot, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEFORE, AFTER, WITHOUT = VERMILLION, BLUE, GREEN
COLORS = (BLUE, PURPLE, VERMILLION, GREEN)
_MANY = 4
"""Layers that get a line of their own; of more, the worst and the best are shown."""
Points = list[tuple[float, float]]


def draw(retraining: Retraining) -> bytes:
    """Return the retraining as one PNG of all its drawings.

    Raises:
        MissingPackageError: if matplotlib is not installed.
    """
    epochs = len(retraining.epochs)
    ending = "interrupted" if retraining.interrupted else "goals met" if retraining.cured else "goals missed"
    title = f"Retrained for {epochs} epoch{'' if epochs == 1 else 's'}: {ending}"
    return panels(list(_drawings(retraining)), title)


def drawings(report: Report, layer: str | None) -> Iterator[Drawing]:
    """Yield the drawings of the report's retraining."""
    if layer is None and report.retraining is not None:
        yield from _drawings(report.retraining)


def _drawings(retraining: Retraining) -> Iterator[Drawing]:
    found = (_usage(retraining), _perplexity(retraining), _accuracy(retraining), _losses(retraining))
    yield from (drawing for drawing in found if drawing.rows)


def _shown(retraining: Retraining) -> tuple[str, ...]:
    """Return the layers that are drawn: all, or of many the one with the least and the one with the most."""
    last = retraining.after or retraining.before
    names = tuple(last.layers) if last else ()
    if last is None or len(names) <= _MANY:
        return names
    by_share = sorted(names, key=lambda name: last.layers[name].perplexity / last.layers[name].num_codes)
    return (by_share[0], by_share[-1])


def _stops(retraining: Retraining) -> list[tuple[float, Figures]]:
    """Return the epochs that have figures of the split that stops the training."""
    return [(row.epoch, row.stop) for row in retraining.epochs if row.stop is not None]


def _level(value: float, retraining: Retraining) -> Points:
    return [(0, value), (max(1, len(retraining.epochs)), value)]


def _result(retraining: Retraining) -> dict[float, str]:
    """Return the mark of the epoch whose weights are the result, where others came after it."""
    at = retraining.result
    return {} if at is None or at == len(retraining.epochs) else {at: "result"}


def _perplexity(retraining: Retraining) -> Drawing:
    lines, codes = [], 0
    start = {} if retraining.before is None else retraining.before.layers
    for name, color in zip(_shown(retraining), COLORS, strict=False):
        seen = [(epoch, stop.layers[name]) for epoch, stop in _stops(retraining) if name in stop.layers]
        points: Points = [(0, start[name].perplexity)] if name in start else []
        points += [(epoch, layer.perplexity) for epoch, layer in seen]
        active: Points = [(epoch, layer.active) for epoch, layer in seen]
        codes = max([codes, *(layer.num_codes for _, layer in seen)])
        lines += [
            Line(label=f"{name}: perplexity", points=points, color=color, style=".-"),
            Line(label=f"{name}: active codes", points=active, color=color, style=":"),
        ]
    colors = dict(zip(_shown(retraining), COLORS, strict=False))
    goals = {g.layer: g.limit for g in retraining.goals if g.name == "perplexity" and g.layer in colors}
    alike = len(set(goals.values())) == 1
    for name, limit in list(goals.items())[: 1 if alike else None]:
        label, color = ("goal", WITHOUT) if alike else (f"{name}: goal", colors[name or ""])
        lines.append(Line(label=label, points=_level(limit, retraining), color=color, style="--"))
    return curves(
        lines,
        part="perplexity",
        title="Usage by epoch",
        caption="Perplexity on the split that stops the training; epoch 0 is the checkpoint as it was.",
        x="epoch",
        y="codes",
        top=codes * 1.05 or None,
        marks=_result(retraining),
    )


def _accuracy(retraining: Retraining) -> Drawing:
    stops = _stops(retraining)
    accuracy = [(epoch, stop.accuracy) for epoch, stop in stops if stop.accuracy is not None]
    if not accuracy:
        return curves(
            [
                Line(
                    label="task loss",
                    points=[(epoch, stop.loss) for epoch, stop in stops],
                    color=AFTER,
                    style=".-",
                )
            ],
            part="task-loss",
            title="Task loss by epoch",
            caption="On the split that stops the training.",
            x="epoch",
            y="task loss, stop split",
            marks=_result(retraining),
        )
    ece = [(epoch, stop.ece) for epoch, stop in stops if stop.ece is not None]
    before, without = (
        None if of is None else of.accuracy for of in (retraining.before, retraining.without_vq)
    )
    known = [] if without is None else _level(without, retraining)
    start: Points = [] if before is None else [(0, before)]
    return curves(
        [
            Line(label="accuracy", points=accuracy, color=AFTER, style=".-"),
            Line(label="calibration error", points=ece, color=BEFORE, style=":"),
            Line(label=f"without VQ, {retraining.split}", points=known, color=WITHOUT, style="--"),
            Line(label=f"before, {retraining.split}", points=start, color=BEFORE, style="o"),
        ],
        part="accuracy",
        title="Accuracy and calibration by epoch",
        caption="On the split that stops the training; without VQ is the same model trained without it.",
        x="epoch",
        y="share, stop split",
        top=1.02,
        marks=_result(retraining),
    )


def _losses(retraining: Retraining) -> Drawing:
    rows = retraining.epochs
    task = [(row.epoch, row.task_loss) for row in rows]
    vq = [(row.epoch, row.vq_loss) for row in rows if row.vq_loss is not None]
    weights = [(row.epoch, row.vq_weight) for row in rows] if vq else []
    return curves(
        [
            Line(label="task loss", points=task, color=AFTER),
            Line(label="VQ loss, unweighted", points=vq, color=BEFORE, style="--"),
            Line(label="weight of the VQ loss", points=weights, color=WITHOUT, style=":"),
        ],
        part="losses",
        title="Training losses by epoch",
        caption="Means over the training batches.",
        x="epoch",
        y="loss",
        log=bool(rows) and min([*(loss for _, loss in task), *(loss for _, loss in vq)]) > 0,
        marks=_result(retraining),
    )


def _usage(retraining: Retraining) -> Drawing:
    names = _shown(retraining)
    name = next(iter(names), "")
    of_one = f" of {printable(name)}" if len(names) > 1 else ""
    lines = []
    for label, of, color, style in (
        ("before", retraining.before, BEFORE, "--"), ("after", retraining.after, AFTER, "-"),
    ):  # fmt: skip
        layer = of.layers.get(name) if of is not None else None
        if layer is not None and layer.quantiles and layer.vectors:
            last, fair = max(1, len(layer.quantiles) - 1), layer.vectors / layer.num_codes
            shares = [quantile / fair for quantile in reversed(layer.quantiles)]
            points = [(100 * i / last, share) for i, share in enumerate(shares)]
            lines.append(Line(label=label, points=points, color=color, style=style))
    caption = f"Codes of {name}, most used first, on the {retraining.split} split; 1 is uniform usage."
    drawing = curves(
        lines,
        part="usage",
        title=f"Usage of the codes{of_one} before and after",
        caption=caption,
        x="codes, most used first [%]",
        y="times the uniform share",
    )
    return replace(drawing, draw=partial(_in_zone, drawing=drawing))


def _in_zone(panel: Axes, drawing: Drawing) -> None:
    """Draw a usage with the uniform line, and an axis that shows both dead codes and the largest ones."""
    drawing.draw(panel)
    panel.axhline(1.0, color=WITHOUT, linestyle=(0, (4, 3)), linewidth=1.0)
    panel.set_yscale("symlog", linthresh=1.0)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set_ylim(bottom=0)


PLOT = Plot(name="retraining", place=1, of_model=True, drawings=drawings)
