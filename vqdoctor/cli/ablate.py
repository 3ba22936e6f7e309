"""`vqdoctor ablate`: a model trained with and without VQ and with each remedy; what each carries out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from vqdoctor.cli._ablation import following, require_own, write_study
from vqdoctor.cli._options import Ended, with_options
from vqdoctor.core.errors import MissingPackageError, UserError
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.settings import Settings, UserModel

MERGE = "merge"


@with_options
def ablate(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CKPT] | merge DIR...",
            help="A checkpoint, or the folders of shards to join.  [default: the built-in model, or --task]",
        ),
    ] = None,
    *,
    settings: Settings,
    user_model: UserModel,
) -> None:
    """Train a model without VQ, as it is, with each step of the plan, and with FSQ; report what each carries.

    Every training starts anew, with the same epochs and seeds. Each is kept in --out when it is done: the
    same command goes on where it was ended.

    Exit codes: 0 complete, 2 your input, 3 interrupted, a shard alone, or no training of the model as it is.
    """
    require_own(settings.out)
    named = [Path(name) for name in paths or ()]
    if paths == [MERGE]:
        raise UserError("merge names no folder", "vqdoctor ablate merge shard-1 shard-2 --out ablation")
    if paths and paths[0] == MERGE:
        from vqdoctor.engine.ablate.kept import merge

        study = merge(named[1:], settings.out)
    else:
        if len(named) > 1:
            raise UserError(f"{len(named)} checkpoints are named", "name one, or: merge DIR...")
        if importlib.util.find_spec("torch") is None:
            raise MissingPackageError("torch", "training", "torch")
        from vqdoctor.engine.ablate.study import ablate as ablated
        from vqdoctor.engine.ablate.subject import Subject

        subject = Subject(path=named[0] if named else None, user_model=user_model, settings=settings)
        with following() as watcher:
            study = ablated(subject, settings.out, watcher)
    write_study(study, settings.out)
    raise Ended(ExitCode.OK if study.is_complete else ExitCode.INCOMPLETE)
