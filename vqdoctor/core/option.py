"""How an option is declared: once, as a field of the object that it fills.

The command line, `[tool.vqdoctor]` in pyproject.toml and Python's keywords read these declarations: the name,
the help, the group and the parser of an option are declared together.
"""

from __future__ import annotations

import ast
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from vqdoctor.core.errors import UserError
from vqdoctor.core.frozen import frozen

RUNS = ("inspect", "fix", "gate")
"""The commands that examine a checkpoint."""
LOOKS = (*RUNS, "compare", "ablate")
"""These, the one that looks at several, and the one that trains each of its variants."""
EVERYWHERE = (*LOOKS, "examine")
"""The same commands, and `vqdoctor.examine` of Python."""

MODEL, EXAMINED, CHECKS = "Your model and data", "Examination", "Checks and limits"
FIX, RETRAINING, GOALS = "The fix", "Retraining", "Goals of a retraining"
SOURCE = "Your source"
ABLATION, GATE, OUTPUT = "Ablation", "Gate", "Output"
GROUPS = (MODEL, EXAMINED, CHECKS, FIX, ABLATION, RETRAINING, GOALS, SOURCE, GATE, OUTPUT)
"""The headings of the help, in their order."""

Limits = Mapping[str, Mapping[str, float]]


@frozen
class Kind:
    """A kind of values of options.

    Attributes:
        parse: returns the checked value; it takes the option as messages name it, and the raw value.
        metavar: what stands for the value in the help.
        type: what the command line reads: bool, int, float, str or Path.
        several: whether a flag may be given several times; the parser then takes a list.
        choices: the allowed words, where these are few.
        below: returns a checked value of pyproject.toml with relative paths taken from that file's folder; it
            takes the option as messages name it, the folder and the value.
    """

    parse: Callable[[str, Any], Any]
    metavar: str = ""
    type: type = str
    several: bool = False
    choices: tuple[str, ...] = ()
    below: Callable[[str, Path, Any], Any] | None = None


@frozen
class Option:
    """One option.

    Attributes:
        name: as it is written in pyproject.toml, with its table: "codebook-key", "gate.min-usage".
        field: the field that it fills.
        home: the class of that field.
        kind: the kind of its value.
        help: its effect, as one sentence.
        group: its heading in the help.
        commands: the commands that have it.
        in_file: whether pyproject.toml may set it.
        flags: how it is written on a command line, the long form first.
        default: the default as the help shows it; empty is not shown.
    """

    name: str = ""
    field: str = ""
    home: type = object
    kind: Kind
    help: str
    group: str
    commands: tuple[str, ...] = EVERYWHERE
    in_file: bool = True
    flags: tuple[str, ...] = ()
    default: str = ""


def option(default: Any, kind: Kind, help: str, *, shown: str | None = None, **attributes: Any) -> Any:
    """Declare a field of a dataclass as an option.

    Args:
        default: its value unless it is set.
        kind: the kind of its value.
        help: its effect, as one sentence.
        shown: the default as the help shows it, if it differs from the default itself.
        attributes: further ones of `Option`; `name` and `flags` only if they differ from the field's name.
    """
    if shown is None:
        shown = f"{default}" if default or (default == 0 and default is not False) else ""
    metadata = {"option": Option(kind=kind, help=help, default=shown, **attributes)}
    if default == {}:  # a dataclass refuses a value that all its objects would share
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def declared(home: type, table: str = "") -> tuple[Option, ...]:
    """Return the options that a dataclass declares, of the table of pyproject.toml with that name."""
    found = []
    for f in fields(home):
        if told := f.metadata.get("option"):
            name = told.name or f.name.replace("_", "-")
            flags = told.flags or (f"--{name}",)
            full = f"{table}.{name}" if table else name
            found.append(replace(told, name=full, field=f.name, home=home, flags=flags))
    return tuple(found)


def _text(where: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{where}: {value!r} is not a name", "write a name in quotes")
    return value


def _texts(where: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{where}: not a list of names", 'such as ["one", "two"]')
    return tuple(_text(where, item) for item in value)


def _flag(where: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{where}: {value!r} is neither true nor false", "write true or false")
    return value


def _whole(where: str, value: object, *, least: int, noun: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise UserError(f"{where}: {value!r} is not a {noun}", f"write a whole number, {least} or more")
    return value


def is_finite(value: object) -> TypeGuard[float]:
    """Return whether `value` is a number that a float can hold."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max  # an int may be larger, and NaN is never in order
    )


def finite(where: str, value: object, *, least: float = -math.inf, most: float = math.inf) -> float:
    """Return a finite number between two others.

    Raises:
        UserError: if it is none.
    """
    if not is_finite(value):
        raise UserError(f"{where}: {value!r:.40} is not a finite number", "write a number, such as 0.5")
    if not least <= value <= most:
        limits = f"of at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
        raise UserError(f"{where}: {value!r} is out of range", f"write a number {limits}")
    return float(value)


def one_of(where: str, value: object, known: tuple[Any, ...]) -> Any:
    """Return the value, which must be one of the known ones.

    Raises:
        UserError: if it is none of them.
    """
    if value not in known:
        raise UserError(f"{where}: {value!r} is none of {', '.join(known)}")
    return value


def _codes(where: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where}: not a list of codes", 'such as ["VQ101", "VQ5"]')
    codes = tuple(code.strip().upper() for item in value for code in item.split(","))
    if "" in codes:
        raise UserError(f"{where}: an empty code", "such as VQ101 or VQ5")
    return codes


def _limits(where: str, value: object) -> Limits:
    """Read a table of tables (TOML spells a quoted "VQ502.warn_below" flat), or a list of CODE.NAME=VALUE."""
    limits: Limits = {}
    if isinstance(value, list | tuple):
        for text in value:  # the last word on one limit counts
            limits = merged(limits, _limit(where, text))
        return limits
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: not a table", 'such as "VQ502.warn_below" = 0.5')
    for key, item in value.items():
        code, dot, name = str(key).partition(".")
        inner = {name: item} if dot else item
        if not isinstance(inner, Mapping):
            raise UserError(f"{where}.{key}: names no limit", 'such as "VQ502.warn_below" = 0.5')
        checked = {str(k): finite(f"{where}.{code}.{k}", v) for k, v in inner.items()}
        limits = merged(limits, {code.upper(): checked})
    return limits


def _limit(where: str, text: str) -> Limits:
    key, equals, value = text.partition("=")
    code, dot, name = key.strip().partition(".")
    if not (equals and dot and code and name):
        raise UserError(f"{where} {text}: not of the form CODE.name=value", "such as VQ502.warn_below=0.5")
    try:
        number = float(value)
    except ValueError:
        raise UserError(f"{where} {key}: {value!r} is not a number", "such as 0.5") from None
    return {code.upper(): {name: finite(f"{where} {key}", number)}}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of two tables, those of `above` before those of `below`, entry by entry."""
    both = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            both[key] = merged(below[key], above[key])
    return both


def _arguments(where: str, value: object) -> dict[str, Any]:
    """Read a table of arguments, or a list of K=V; a V that is not a Python literal is a string."""
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, list | tuple):
        raise UserError(f"{where}: not a table", "such as { dim = 64 }")
    found: dict[str, Any] = {}
    for text in value:
        name, equals, literal = text.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"{where} {text}: not of the form K=V", "such as dim=64 or shape=(1, 28, 28)")
        try:
            found[name] = ast.literal_eval(literal)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            found[name] = literal
    return found


def _path(where: str, value: object) -> Path:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise UserError(f"{where}: {value!r} is not a file", "write its path in quotes")
    return Path(value)


def _paths(where: str, value: object) -> tuple[Path, ...]:
    return tuple(_path(where, item) for item in (value if isinstance(value, list | tuple) else [value]))


def _below(_where: str, folder: Path, files: Path | tuple[Path, ...]) -> Path | tuple[Path, ...]:
    return folder / files if isinstance(files, Path) else tuple(folder / file for file in files)


def _weight(where: str, value: object) -> Any:
    if value == "auto":
        return value
    try:
        return finite(where, float(value) if isinstance(value, str) else value, least=0)
    except (UserError, ValueError):
        raise UserError(f"{where}: {value!r} is neither a weight nor auto", "such as 0.1") from None


def _code_below(where: str, folder: Path, value: object) -> str:
    """Return where to import an object, with the path of a file taken from `folder`."""
    named = _text(where, value)
    file, colon, name = named.rpartition(":")
    return f"{folder / file}:{name}" if colon and file.endswith(".py") else named


def _shard(where: str, value: object) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", str(value))
    if not found or int(found[1]) > int(found[2]):
        raise UserError(f"{where}: {value!r} is not a shard", "such as 1/2 and 2/2")
    return int(found[1]), int(found[2])


def text(metavar: str) -> Kind:
    """A name."""
    return Kind(parse=_text, metavar=metavar)


def texts(metavar: str) -> Kind:
    """Any number of names."""
    return Kind(parse=_texts, metavar=metavar, several=True)


def whole(least: int, noun: str) -> Kind:
    """A whole number from `least` on; messages call it by the noun."""
    return Kind(parse=partial(_whole, least=least, noun=noun), metavar="N", type=int)


def number(metavar: str, *, least: float = 0.0, most: float = math.inf) -> Kind:
    """A finite number between two others."""
    return Kind(parse=partial(finite, least=least, most=most), metavar=metavar, type=float)


def choice(*known: str) -> Kind:
    """One of a few words."""
    return Kind(parse=partial(one_of, known=known), metavar="|".join(known), choices=known)


def code(metavar: str) -> Kind:
    """An object of the user's, or where to import it."""
    return Kind(
        parse=lambda where, value: _text(where, value) if isinstance(value, str) else value,
        metavar=metavar,
        below=_code_below,
    )


SWITCH = Kind(parse=_flag, type=bool)
CODES = Kind(parse=_codes, metavar="CODES", several=True)
LIMITS = Kind(parse=_limits, metavar="CODE.NAME=VALUE", several=True)
ARGUMENTS = Kind(parse=_arguments, metavar="K=V", several=True)
SHARD = Kind(parse=_shard, metavar="I/N")
WEIGHT = Kind(parse=_weight, metavar="W|auto")


def path(metavar: str) -> Kind:
    """A file."""
    return Kind(parse=_path, metavar=metavar, type=Path, below=_below)


def paths(metavar: str) -> Kind:
    """Any number of files."""
    return Kind(parse=_paths, metavar=metavar, type=Path, several=True, below=_below)
