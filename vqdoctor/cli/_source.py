"""The part of `vqdoctor fix` that patches the user's source."""

from __future__ import annotations

from pathlib import Path

from vqdoctor.cli._output import progress
from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings, UserModel


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
