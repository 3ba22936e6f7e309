"""The entry point: the commands, and every way to end mapped to an exit code and one clear line."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from vqdoctor import __version__
from vqdoctor.__main__ import INTERRUPTED
from vqdoctor.cli._options import Command
from vqdoctor.cli._output import be_quiet, complain_of, flush, silence, write
from vqdoctor.core.errors import UserError, near
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.launcher import Launched
from vqdoctor.models.user_code import fault_of_user, said

COLLECT_AFTER = 50_000
"""New objects between two searches for garbage. Python's 700 would search all that is being imported, again
and again: a twentieth of a short run, while there is no garbage yet."""

COMMANDS = ("inspect", "fix", "gate", "compare", "ablate", "watch", "init", "explain", "checks")
"""The commands in the order of the help: each is a function of its own module of the same name."""

TOGETHER = frozenset({"fix", "inspect"})
"""The commands in which the further processes of torchrun have a part; else rank zero alone runs."""

# typer carries its own copy of click since 0.16 and used the real one before: this names either's base.
CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


class Commands(TyperGroup):
    """The commands, each imported when it is asked for; the error of a mistyped one names the most alike."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name; None if there is none."""
        return _command(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command of that name.

        Raises:
            UserError: if there is none.
        """
        if args and args[0] not in COMMANDS and not ctx.resilient_parsing:
            hint = near(args[0], COMMANDS) or f"the commands are {', '.join(COMMANDS)}"
            raise UserError(f"there is no command {args[0]!r}", hint)
        return super().resolve_command(ctx, args)


_PLAIN: Any = {"rich_markup_mode": None, "pretty_exceptions_enable": False}


@cache
def _command(name: str) -> Any:
    """Return a command, with all its options; the others are not imported for it."""
    alone = typer.Typer(add_completion=False, **_PLAIN)
    alone.command(cls=Command)(getattr(importlib.import_module(f"vqdoctor.cli.{name}"), name))
    return typer.main.get_command(alone)


app = typer.Typer(
    name="vqdoctor",
    cls=Commands,
    help="Finds out why a vector-quantized model's codebook collapsed, and ranks the fixes.",
    context_settings={"help_option_names": ["-h", "--help"]},
    **_PLAIN,
)


@app.callback(invoke_without_command=True)
def _common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        write(f"vqdoctor {__version__}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise UserError("no command is given", "`vqdoctor inspect CKPT`, or `vqdoctor --help`")


def run() -> NoReturn:
    """Run the command line and leave with its exit code."""
    # torch's threads spin while they wait for each other: where another process wants a core too, small
    # models took eight times as long. What the user has set stands.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    gc.set_threshold(COLLECT_AFTER)
    code = main(sys.argv[1:])
    flush()
    silence()
    sys.exit(code)


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; every exception is turned into one."""
    if Launched.of().rank > 0:
        if TOGETHER.isdisjoint(arguments[:1]):
            return ExitCode.OK
        be_quiet()
    try:
        # Without "standalone" typer leaves errors, and thereby exit codes, to us.
        return int(app(list(arguments), prog_name="vqdoctor", standalone_mode=False) or ExitCode.OK)
    except UserError as error:
        complain_of(error)
        return ExitCode.USER_ERROR
    except CommandLineError as error:
        complain_of(_usage_error(error))
        return ExitCode.USER_ERROR
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except SystemExit as exit:
        if isinstance(exit.__context__, BrokenPipeError):
            return ExitCode.OK  # typer leaves with 1, "findings", when the reader of a help page has gone
        return exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException as error:
        if fault := fault_of_user(error) or _refused(error):
            complain_of(fault)
            return ExitCode.USER_ERROR
        if os.environ.get("VQDOCTOR_TRACEBACK") == "1":
            traceback.print_exc()
        what = f"vqdoctor has a bug: {said(error)}"
        complain_of(UserError(what, "please report it, with what VQDOCTOR_TRACEBACK=1 prints"))
        return ExitCode.INCOMPLETE


def _refused(error: BaseException) -> UserError | None:
    """Return the error of a path that the system refuses: a folder may not be read, a name is too long."""
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return None
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return None
    path = Path(os.fsdecode(error.filename))
    look = f"ls -ld {path.parent} {path} shows who may"
    hint = look if isinstance(error, PermissionError) else "name another path"
    return UserError(f"{path}: {error.strerror}", hint)


def _usage_error(error: Any) -> UserError:
    """Return typer's error as one of ours, with the place of the help."""
    context = getattr(error, "ctx", None)
    help = f"`{context.command_path if context else 'vqdoctor'} --help` shows the options"
    if hasattr(error, "possibilities"):
        known = [name for option in context.command.params for name in option.opts] if context else []
        hint = f"{near(error.option_name, known)} {help}".strip()
        return UserError(f"there is no option {error.option_name}", hint)
    return UserError(error.format_message().rstrip(". "), help)
