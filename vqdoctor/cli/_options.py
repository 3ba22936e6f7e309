"""From the declared options to a command: its signature for typer, and its help in groups."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from vqdoctor.checks import all_checks
from vqdoctor.cli import _codes
from vqdoctor.core.configure import configure
from vqdoctor.core.errors import UserError
from vqdoctor.core.option import GROUPS, Option
from vqdoctor.core.settings import options
from vqdoctor.models.user_code import fault_of_user, said
from vqdoctor.render import format_names

COLUMN = 30
"""Characters of the left column of a help page, which holds an option and its metavar."""


class Ended(typer.Exit):
    """The end of a command, with its exit code; any other exit in it is one of the user's code."""


class Command(TyperCommand):
    """A command whose help shows its options in groups, in columns that line up."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            UserError: if something other than the command itself ended the process.
        """
        try:
            return super().invoke(ctx)
        except (SystemExit, typer.Exit) as exit:
            if isinstance(exit, Ended):
                raise
            raise fault_of_user(exit) or UserError(f"your code ended the process: {said(exit)}") from exit

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the groups one after the other."""
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Arguments", *GROUPS)}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                title = getattr(parameter, "rich_help_panel", None) or "Help"
                kind = parameter.param_type_name
                groups.setdefault("Arguments" if kind == "argument" else title, []).append(record)
        width = min(COLUMN, max(len(left) for records in groups.values() for left, _ in records))
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl([(left.ljust(width), right) for left, right in records])


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option that is declared for it.

    The command itself takes its arguments and, made of the options and of pyproject.toml, `settings` and
    `user_model`.
    """
    declared = options(command.__name__)
    parameters = [p for p in signature(command, eval_str=True).parameters.values() if p.name not in _MADE]
    parameters += [_parameter(option) for option in declared]

    def run(**given: Any) -> None:
        flags = {option.name: given.pop(_identifier(option)) for option in declared}
        try:
            here = Path.cwd()
        except FileNotFoundError:
            raise UserError("the working directory is gone", "cd to a folder that exists") from None
        settings, user_model = configure(here, flags)
        from vqdoctor.engine.evaluate import choose

        with settings.blaming_the_file():
            choose(all_checks(), settings)  # a wrong code is refused before anything is read
            command(**given, settings=settings, user_model=user_model)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


_MADE = ("settings", "user_model")


def _parameter(option: Option) -> Parameter:
    """Return the parameter in which typer finds the whole declaration of an option."""
    kind, flags = option.kind, option.flags
    if kind.type is bool and option.in_file:  # so that a flag can switch off a setting of the file
        flags = (f"{flags[0]}/--no-{flags[0].removeprefix('--')}",)
    default = f"  [default: {option.default}]" if option.default else ""
    told = typer.Option(
        *flags,
        metavar=kind.metavar or None,
        help=option.help.format(formats=", ".join(format_names())) + default,
        rich_help_panel=option.group,
        autocompletion=_completion(option),
    )
    one: Any = kind.type
    value = list[one] if kind.several else one
    return Parameter(
        _identifier(option), Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[value | None, told]
    )


def _identifier(option: Option) -> str:
    return option.name.replace("-", "_").replace(".", "_")


def _completion(option: Option) -> Callable[[str], list[str]] | None:
    """Return the function that completes the value of an option in a shell."""
    if option.name in ("select", "ignore"):
        return _codes.complete
    known = format_names() if option.name == "format" else option.kind.choices

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete if known else None
