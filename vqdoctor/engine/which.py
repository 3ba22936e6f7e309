"""Which checkpoint a command means that names none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from vqdoctor.checkpoint import CheckpointError, open_checkpoint
from vqdoctor.core.errors import UserError
from vqdoctor.core.files import SUFFIXES
from vqdoctor.core.report import Report
from vqdoctor.engine.repair import FIXED

MOST = 8
"""Candidates that an error lists."""


def which_checkpoint(
    *, report: Path | None, setting: Path | None, folder: Path, command: str
) -> tuple[Path, str]:
    """Return the checkpoint that is meant, and why it is that one.

    It is the one that a saved report names, else the one of the settings, else the only one in the folder:
    outputs of earlier fixes, and files of tensors without a VQ layer's form such as batches, do not count.

    Args:
        report: a saved report.
        setting: the checkpoint that `[tool.vqdoctor]` names.
        folder: where the command runs.
        command: what the user would type before a checkpoint ("vqdoctor fix").

    Raises:
        UserError: if there is none, or several; these are listed as full commands.
    """
    if report is not None:
        return _of_report(report), f"named by {report}"
    if setting is not None:
        return setting, "named by tool.vqdoctor.checkpoint"
    found = list(_candidates(folder))
    if len(found) == 1:
        return found[0], "the only checkpoint here"
    if not found:
        raise UserError("no checkpoint is named, and there is none here", f"{command} CKPT")
    shown = " | ".join(f"{command} {file}" for file in found[:MOST])
    more = f" | and {len(found) - MOST} more" if len(found) > MOST else ""
    raise UserError(f"no checkpoint is named, and {len(found)} are here", shown + more)


def _of_report(file: Path) -> Path:
    """Return the checkpoint of a report: where it says, from here or from the report's own folder."""
    try:
        report = Report.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(
            f"--from {file}: {error.strerror or error}", "name a report of --save json=FILE"
        ) from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"--from {file}: not a JSON report", "name a report of --save json=FILE") from error
    if report.checkpoint is None:
        raise UserError(
            f"--from {file}: it is of a live model, and names no checkpoint", "name the checkpoint"
        )
    named = Path(report.checkpoint.path)
    places = (named, file.parent / named, file.parent / named.name)
    return next((place for place in places if place.is_file()), named)


def _candidates(folder: Path) -> Iterator[Path]:
    """Yield the checkpoints in a folder, by their names as a user would type them."""
    for file in sorted(folder.iterdir()):
        named = file.name.lower().endswith(SUFFIXES) and FIXED not in file.suffixes[:-1]
        if named and file.is_file() and _opens(file):
            yield file.relative_to(folder)


def _opens(file: Path) -> bool:
    """Whether a file holds tensors of a model; a broken one counts, so that its fault is told."""
    try:
        tensors = open_checkpoint(file).tensors
    except CheckpointError:
        return True
    return not {"x", "z_e", "indices"} & {key.partition("/")[0] for key in tensors}
