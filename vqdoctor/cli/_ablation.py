"""The part of `vqdoctor ablate` that shows its progress, and writes its files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vqdoctor.cli._output import (
    complain,
    progress,
    save,
    terminal_options,
    without_commands,
    write,
)
from vqdoctor.core.ablation import Run, Study
from vqdoctor.core.errors import MissingPackageError, UserError
from vqdoctor.render import ablation_csv, ablation_json, ablation_markdown, ablation_text, costs_csv

if TYPE_CHECKING:  # needs torch
    from vqdoctor.engine.ablate.study import Watcher
    from vqdoctor.engine.session import Progress

REPORT, RESULTS, PICTURE = "ablation_report.md", "ablation_results.json", "ablation.png"
FILES = {
    REPORT: ablation_markdown,
    RESULTS: ablation_json,
    "ablation.csv": ablation_csv,
    "ablation_costs.csv": costs_csv,
}
"""The files of a study in its folder, and what writes each."""


def require_own(folder: Path) -> None:
    """Refuse a folder whose files no study wrote and a study would overwrite.

    Raises:
        UserError: if it has one, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: a file, and no folder", "name a folder")
    from vqdoctor.engine.ablate.kept import STUDY  # the engine loads numpy

    there = [name for name in (*FILES, PICTURE) if (folder / name).exists()]
    if there and not (folder / STUDY).exists():
        raise UserError(
            f"{folder / there[0]} is there, and no study of ablate wrote it", "give another --out"
        )


@contextlib.contextmanager
def following() -> Iterator[Watcher]:
    """Give an object that shows a study as it goes on: a line for each training, with the time left."""
    with progress() as say:
        yield _Lines(say)


class _Lines:
    def __init__(self, say: Progress | None) -> None:
        self._say = say

    def say(self, doing: str) -> None:
        if self._say is not None:
            self._say(doing)

    def done(self, run: Run, number: int, of: int, seconds_left: float) -> None:
        told = run.failed
        if (found := run.figures) is not None:
            told = (
                f"task loss {found.loss:.4g}" if found.accuracy is None else f"accuracy {found.accuracy:.3f}"
            )
            told += "".join(f", perplexity {layer.perplexity:.0f}" for layer in found.layers.values())
        left = f"{seconds_left / 60:.0f} min" if seconds_left >= 90 else f"{seconds_left:.0f} s"
        complain(f"{number} of {of}, {left} left: {run.run}, seed {run.seed}: {told}")


def write_study(study: Study, folder: Path) -> None:
    """Write the files of a study, and its finding to standard output.

    Raises:
        UserError: if one cannot be written.
    """
    for name, text in FILES.items():
        save(text(study), folder / name)
    from vqdoctor.plots._ablation import draw

    try:
        draw(study, folder / PICTURE)
    except MissingPackageError as error:
        complain(f"no picture: {error}")
    except OSError as error:
        complain(f"no picture: {folder / PICTURE}: {error.strerror or error}")
    write(without_commands(ablation_text(study, terminal_options().width), "text"))
    complain(f"report: {folder / REPORT}")
