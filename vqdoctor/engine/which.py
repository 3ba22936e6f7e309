"""Choosing the checkpoint of a command that names none."""

from __future__ import annotations

from pathlib import Path

from vqdoctor.checkpoint import CheckpointError, open_checkpoint
from vqdoctor.core.errors import UserError
from vqdoctor.core.files import SUFFIXES
from vqdoctor.core.json_text import parse
from vqdoctor.core.report import Report
from vqdoctor.engine.repair import FIXED

MOST = 8
"""Candidates that an error lists."""


def which_checkpoint(
    *, report: Path | None, setting: Path | None, folder: Path, command: str
) -> tuple[Path, str]:
    """Return the checkpoint of a command that names none, and the reason for the choice.

    A saved report's checkpoint comes first, then the setting, then the only checkpoint in the folder. Outputs
    of earlier fixes and batches do not count.

    Args:
        report: a saved report.
        setting: the checkpoint that `[tool.vqdoctor]` names.
        folder: where the command runs.
        command: the words before a checkpoint on a command line ("vqdoctor fix").

    Raises:
        UserError: if there is none, or there are several, which are listed as full commands.
    """
    if report is not None:
        return _of_report(report), f"named by {report}"
    if setting is not None:
        return setting, "named by tool.vqdoctor.checkpoint"
    checkpoints = (
        file
        for file in sorted(folder.iterdir())
        if file.name.lower().endswith(SUFFIXES) and FIXED not in file.suffixes[:-1] and file.is_file()
    )
    found = [file.relative_to(folder) for file in checkpoints if _may_hold_a_model(file)]
    if len(found) == 1:
        return found[0], "the only checkpoint here"
    if not found:
        raise UserError("no checkpoint is named, and there is none here", f"{command} CKPT")
    shown = " | ".join(f"{command} {file}" for file in found[:MOST])
    more = f" | and {len(found) - MOST} more" if len(found) > MOST else ""
    raise UserError(f"no checkpoint is named, and {len(found)} are here", shown + more)


def _of_report(file: Path) -> Path:
    """Return the checkpoint of a report, whose path is looked up from here and from the report's folder."""
    hint = "name a report of --save json=FILE"
    try:
        report = Report.from_dict(parse(file.read_bytes()))
    except OSError as error:
        raise UserError(f"--from {file}: {error.strerror or error}", hint) from error
    except (ValueError, AttributeError) as error:
        raise UserError(f"--from {file}: not a JSON report", hint) from error
    if report.checkpoint is None:
        what = f"--from {file}: a report of a live model, which has no checkpoint"
        raise UserError(what, "name the checkpoint")
    named = Path(report.checkpoint.path)
    places = (named, file.parent / named, file.parent / named.name)
    return next((place for place in places if place.is_file()), named)


def _may_hold_a_model(file: Path) -> bool:
    """Whether a file is not a batch; a broken file counts, so that its fault is reported."""
    try:
        tensors = open_checkpoint(file).tensors
    except CheckpointError:
        return True
    return not {"x", "z_e", "indices"} & {key.partition("/")[0] for key in tensors}
