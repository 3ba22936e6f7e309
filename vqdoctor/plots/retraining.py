"""A retraining as a picture: usage, accuracy and losses by epoch, and the codes' usage before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vqdoctor.core.errors import MissingPackageError
from vqdoctor.core.retraining import Retraining

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEFORE, AFTER, WITHOUT = "#c44e52", "#2a7f5f", "#555555"
_MANY = 4
"""Layers that get a line of their own; of more, the worst and the best are shown."""


def draw(retraining: Retraining, path: Path) -> None:
    """Draw the retraining and save it; the format is that of the path's suffix.

    Raises:
        MissingPackageError: if matplotlib is not installed.
        OSError: if the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MissingPackageError("matplotlib", "drawing", "plots") from error
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    for panel, fill in zip(axes.flat, (_perplexity, _accuracy, _losses, _usage), strict=True):
        fill(panel, retraining)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=8, frameon=False)
        if fill is not _usage:  # the other panels have epochs below
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    epochs = len(retraining.epochs)
    ending = "interrupted" if retraining.interrupted else "goals met" if retraining.cured else "goals missed"
    figure.suptitle(f"Retrained for {epochs} epoch{'' if epochs == 1 else 's'}: {ending}")
    figure.savefig(path, dpi=130)


def _shown(retraining: Retraining) -> tuple[str, ...]:
    """Return the layers that are drawn: all, or of many the one with the least and the one with the most."""
    last = retraining.after or retraining.before
    names = tuple(last.layers) if last else ()
    if last is None or len(names) <= _MANY:
        return names
    by_share = sorted(names, key=lambda name: last.layers[name].perplexity / last.layers[name].num_codes)
    return (by_share[0], by_share[-1])


def _perplexity(panel: Axes, retraining: Retraining) -> None:
    panel.set(title="perplexity", xlabel="epoch", ylabel="codes")
    codes = 0
    start = {} if retraining.before is None else retraining.before.layers
    for name in _shown(retraining):
        points = [(0, start[name].perplexity)] if name in start else []
        stops = [(row.epoch, row.stop.layers) for row in retraining.epochs if row.stop is not None]
        seen = [(epoch, layers[name]) for epoch, layers in stops if name in layers]
        points += [(epoch, layer.perplexity) for epoch, layer in seen]
        codes = max([codes, *(layer.num_codes for _, layer in seen)])
        if points:
            (line,) = panel.plot(*zip(*points, strict=True), marker=".", label=f"{name}: perplexity")
            if seen:
                active, color = [(epoch, layer.active) for epoch, layer in seen], line.get_color()
                label = f"{name}: active codes"
                panel.plot(*zip(*active, strict=True), linestyle=":", color=color, label=label)
    for goal in retraining.goals:
        if goal.name == "perplexity" and goal.layer in _shown(retraining)[:1]:
            panel.axhline(goal.limit, color=WITHOUT, linestyle="--", linewidth=1, label="goal")
    if codes:
        panel.set_ylim(0, codes * 1.05)


def _accuracy(panel: Axes, retraining: Retraining) -> None:
    points = [
        (row.epoch, row.stop.accuracy, row.stop.ece)
        for row in retraining.epochs
        if row.stop is not None and row.stop.accuracy is not None
    ]
    if not points:
        panel.set(title="task loss on the split that stops the training", xlabel="epoch")
        losses = [(row.epoch, row.stop.loss) for row in retraining.epochs if row.stop is not None]
        if losses:
            panel.plot(*zip(*losses, strict=True), color=AFTER, marker=".", label="task loss")
        return
    panel.set(title="accuracy and calibration error", xlabel="epoch", ylim=(0, 1.02))
    epochs = [epoch for epoch, _, _ in points]
    panel.plot(epochs, [a for _, a, _ in points], color=AFTER, marker=".", label="accuracy")
    errors = [(epoch, ece) for epoch, _, ece in points if ece is not None]
    if errors:
        panel.plot(*zip(*errors, strict=True), color=BEFORE, linestyle=":", label="calibration error (ECE)")
    if retraining.without_vq is not None and retraining.without_vq.accuracy is not None:
        panel.axhline(
            retraining.without_vq.accuracy, color=WITHOUT, linestyle="--", linewidth=1, label="without VQ"
        )
    if retraining.before is not None and retraining.before.accuracy is not None:
        panel.plot([0], [retraining.before.accuracy], "o", color=BEFORE, label="before")


def _losses(panel: Axes, retraining: Retraining) -> None:
    panel.set(title="training losses", xlabel="epoch")
    epochs = [row.epoch for row in retraining.epochs]
    task = [row.task_loss for row in retraining.epochs]
    vq = [(row.epoch, row.vq_loss) for row in retraining.epochs if row.vq_loss is not None]
    if epochs:
        panel.plot(epochs, task, color=AFTER, label="task loss")
    if vq:
        panel.plot(*zip(*vq, strict=True), color=BEFORE, label="VQ loss, unweighted")
        weights = [(row.epoch, row.vq_weight) for row in retraining.epochs]
        panel.plot(*zip(*weights, strict=True), color=WITHOUT, linestyle=":", label="its weight")
    if epochs and min([*task, *(loss for _, loss in vq)]) > 0:
        panel.set_yscale("log")


def _usage(panel: Axes, retraining: Retraining) -> None:
    panel.set(
        title=f"how often each code is chosen ({retraining.split} split)",
        xlabel="codes, least to most used [%]",
        ylabel="times its fair share",
    )
    name = next(iter(_shown(retraining)), None)
    for label, figures, color in (("before", retraining.before, BEFORE), ("after", retraining.after, AFTER)):
        layer = figures.layers.get(name) if figures is not None and name is not None else None
        if layer is None or not layer.quantiles or not layer.vectors:
            continue
        fair = layer.vectors / layer.num_codes
        steps = len(layer.quantiles) - 1
        at = [100 * i / steps for i in range(steps + 1)] if steps else [50.0]
        shares = [quantile / fair for quantile in layer.quantiles]
        panel.fill_between(at, shares, color=color, alpha=0.25, step="mid")
        panel.plot(at, shares, color=color, drawstyle="steps-mid", label=f"{name} {label}")
    panel.axhline(1.0, color=WITHOUT, linestyle="--", linewidth=1, label="even usage")
    panel.set_yscale("symlog", linthresh=1.0)
    panel.set_ylim(bottom=0)
