"""The part of `vqdoctor fix` that patches the user's source."""

from __future__ import annotations

from pathlib import Path

from vqdoctor.cli._output import progress
from vqdoctor.core.errors import UserError
from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings, UserModel


def require_fitting(settings: Settings) -> None:
    """Refuse options of a patch that contradict each other.

    Raises:
        UserError: if they do.
    """
    if settings.source is None and (settings.diff or settings.write_source):
        raise UserError(f"{'--diff' if settings.diff else '--write'} needs --source FILE.py")
    if settings.source is not None and (settings.retrain or settings.output):
        other = "--retrain" if settings.retrain else "-o"
        raise UserError(f"--source and {other}: one run patches the source, or writes a checkpoint")
    if settings.source is not None and settings.trial:
        raise UserError("--source and --trial: a trial trains the remedies, and patches no source")
    if settings.dry_run and settings.write_source:
        raise UserError("--dry-run and --write: a dry run writes nothing", "--diff shows the patch")
    if settings.diff and settings.write_source:
        raise UserError("--diff and --write: the patch is either shown or written")


def patched(path: Path, source: Path, settings: Settings, user_model: UserModel) -> Report:
    """Patch a copy of a source file by the plan, and return the report with the patch.

    Raises:
        UserError: if the engine cannot patch it.
    """
    from vqdoctor.engine.source import patch_source

    with progress() as say:
        return patch_source(
            path, source, data=settings.batch, user_model=user_model, settings=settings, progress=say
        )
