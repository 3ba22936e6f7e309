"""The pictures of reports as files: `--plots DIR`."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vqdoctor.core.errors import MissingPackageError, UserError
from vqdoctor.core.picture import Picture
from vqdoctor.core.report import Report

HEADER = '<?xml version="1.0" encoding="utf-8"?>\n'
LONGEST = 80
"""Letters of a file's name that come from a layer."""


def check_folder(folder: Path) -> None:
    """Make sure, before the long work, that pictures can be drawn and written there.

    Raises:
        MissingPackageError: if matplotlib is not installed.
        UserError: if the folder cannot be made or written to.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingPackageError("matplotlib", "--plots", "plots")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--plots {folder}: {error.strerror or error}", "name a folder") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--plots {folder}: the folder cannot be written to", "draw elsewhere")


def draw_into(folder: Path, reports: Sequence[Report]) -> None:
    """Write the pictures of all reports, as "usage-LAYER.svg" and ".png"; of several reports with a number.

    Raises:
        UserError: if a file cannot be written.
    """
    from vqdoctor.plots import pictures

    several = len(reports) > 1
    numbered = enumerate(reports, start=1)
    write_pictures(
        folder, ((str(n) if several else "", p) for n, report in numbered for p in pictures(report, png=True))
    )


def write_pictures(folder: Path, pictures: Iterable[tuple[str, Picture]]) -> None:
    """Write pictures, each with the beginning of its name, as SVG and PNG; those that were not drawn are not.

    Raises:
        UserError: if a file cannot be written.
    """
    taken: set[str] = set()
    for beginning, picture in pictures:
        if not picture.svg:
            continue
        name = base = "-".join(filter(None, (beginning, picture.name, _plain(picture.layer or ""))))
        again = 2
        while name.lower() in taken:  # layers whose names differ in other signs alone
            name, again = f"{base}-{again}", again + 1
        taken.add(name.lower())
        try:
            (folder / f"{name}.svg").write_text(HEADER + picture.svg, encoding="utf-8", newline="\n")
            (folder / f"{name}.png").write_bytes(picture.png)
        except OSError as error:
            raise UserError(f"--plots {folder}: {error.strerror or error}", "draw elsewhere") from error


def _plain(layer: str) -> str:
    """Return a layer's name with letters, digits, dots and dashes alone: a stranger's file chose it."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", layer).strip(".-")[:LONGEST]
