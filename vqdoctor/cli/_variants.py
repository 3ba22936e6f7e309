"""The part of `vqdoctor inspect` that judges the results of an ablation."""

from __future__ import annotations

from pathlib import Path

from vqdoctor.cli._output import save, without_commands, write
from vqdoctor.core.errors import UserError
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.render import VARIANT_FORMATS


def inspect_results(path: Path, settings: Settings, user_model: UserModel) -> ExitCode:
    """Judge the variants of a file, write them, and return the exit code.

    Raises:
        UserError: if the file is something else, an option does not fit, or a file cannot be written.
    """
    from vqdoctor.engine.ablate.results import read_results

    if settings.data or user_model.runs:
        raise UserError(f"{path}: --data and models are for checkpoints", "leave them out")
    if settings.plots is not None:
        raise UserError(f"{path}: --plots is for reports", "vqdoctor ablate draws its own picture")
    saved = [text.partition("=")[::2] for text in settings.save]
    for name in (settings.format, *(name for name, _ in saved)):
        if name not in VARIANT_FORMATS:
            what = f"an ablation has no format {name!r}"
            raise UserError(what, f"it has {', '.join(VARIANT_FORMATS)}")
    found = read_results(path)
    write(without_commands(VARIANT_FORMATS[settings.format](found), settings.format))
    for name, target in saved:
        save(VARIANT_FORMATS[name](found), Path(target))
    return found.exit_code(fails=settings.bar is not None)
