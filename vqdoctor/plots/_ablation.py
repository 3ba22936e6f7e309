"""An ablation as a picture: accuracy and perplexity of every cell, with the spread over the seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vqdoctor.core.ablation import Study
from vqdoctor.core.ablation_summary import LEAST_PERPLEXITY, MOST_PERPLEXITY, Mean, means
from vqdoctor.core.errors import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "reference": "#555555",
    "added": "#2a7f5f",
    "alone": "#4c72b0",
    "left out": "#c44e52",
    "random": "#b8860b",
    "in its place": "#8172b2",
    "stages": "#4c72b0",
}


def draw(study: Study, path: Path) -> None:
    """Draw a study and save it; the format is that of the path's suffix.

    Raises:
        MissingPackageError: if matplotlib is not installed.
        OSError: if the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError("matplotlib", "drawing", "plots") from error
    table = [means(study, cell) for cell in study.cells]
    task = "accuracy" if any("accuracy" in found for found in table) else "loss"
    figure = Figure(figsize=(11, 1.5 + 0.3 * len(table)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _bars(left, study, [found.get(task) for found in table])
    _bars(right, study, [found.get("perplexity") for found in table])
    left.set(title="task loss" if task == "loss" else task)
    right.set(title="perplexity")
    if table and task in table[0] and study.cells[0].without_vq:
        left.axvline(table[0][task].value, color="#555555", linestyle="--", linewidth=1)
    right.axvspan(LEAST_PERPLEXITY, MOST_PERPLEXITY, color="#2a7f5f", alpha=0.08)
    names = [cell.name if len(cell.name) < 45 else cell.name[:44] + "…" for cell in study.cells]
    left.set_yticks(range(len(names)), names, fontsize=8)
    left.invert_yaxis()
    seeds = f"{len(study.seeds)} seed{'' if len(study.seeds) == 1 else 's'}"
    figure.suptitle(f"{study.subject}: {study.epochs} epochs, {seeds}", fontsize=10)
    figure.savefig(path, dpi=130)


def _bars(panel: Axes, study: Study, found: list[Mean | None]) -> None:
    for at, (cell, mean) in enumerate(zip(study.cells, found, strict=True)):
        if mean is not None:
            panel.barh(at, mean.value, xerr=mean.spread, color=COLOURS[cell.group], alpha=0.8, height=0.7)
    panel.grid(axis="x", alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
