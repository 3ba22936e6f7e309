"""Reading the settings: defaults, below `[tool.vqdoctor]` of the nearest pyproject.toml, below flags."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vqdoctor.core.errors import UserError, suggestion
from vqdoctor.core.option import merged
from vqdoctor.core.settings import MODEL_NAMES, OF_MODEL, OPTIONS, Settings, UserModel, fill, options

_LARGEST = 512 << 10
"""Bytes of a pyproject.toml; Python's reader takes a second for a megabyte."""
_MOST_DOTS = 400


def configure(start: Path, flags: Mapping[str, object]) -> tuple[Settings, UserModel]:
    """Return the settings for a run in the folder `start`.

    Args:
        start: where the search for pyproject.toml begins, upwards.
        flags: values by the name of the option; None is a flag that is not given.

    Raises:
        UserError: if a name is unknown or a value is not allowed; the message says where, and which are.
    """
    file = nearest_pyproject(start)
    told = read_pyproject(file) if file else {}
    given = {n: OPTIONS[n].kind.parse(OPTIONS[n].flags[0], v) for n, v in flags.items() if v is not None}
    told = _beside_flags(told, given)
    values = merged(told, given)
    # A requirement joins those of the file; a flag replaces any other value, or its own entry of a table.
    if "gate.require" in told and "gate.require" in given:
        values["gate.require"] = (*told["gate.require"], *given["gate.require"])
    # An option that a flag sets again is no longer the file's.
    left = {name: value for name, value in told.items() if name not in given}
    with Settings(pyproject=file, from_file=left).blaming_the_file():
        settings, user_model = fill(values)
    return replace(settings, flags=frozenset(given), pyproject=file, from_file=left), user_model


def from_keywords(
    function: str, keywords: Mapping[str, object], objects: Mapping[str, Any]
) -> tuple[Settings, UserModel]:
    """Return the settings and the user model that keywords of a Python function make.

    Args:
        function: its name, which stands among the commands of an option.
        keywords: values by their names; None is a keyword that is not given.
        objects: fields of the user model that Python alone can give.

    Raises:
        TypeError: if there is no such keyword.
        UserError: if a value is not allowed.
    """
    known = {told.name.replace("-", "_"): told for told in options(function)}
    for name in keywords:
        if name not in known:
            raise TypeError(f"{function}() has no keyword {name!r}: {suggestion(name, known)}")
    given = {name: value for name, value in keywords.items() if value is not None}
    values = {known[name].name: known[name].kind.parse(f"{name}=", v) for name, v in given.items()}
    return fill(values, objects)


def nearest_pyproject(start: Path) -> Path | None:
    """Return the pyproject.toml in `start` or in the nearest folder above it; None if there is none."""
    folder = start.absolute()
    candidates = (above / "pyproject.toml" for above in (folder, *folder.parents))
    return next((file for file in candidates if file.is_file()), None)


def read_pyproject(path: Path) -> dict[str, Any]:
    """Return the settings of the table `[tool.vqdoctor]` by the name of their option, checked.

    Raises:
        UserError: if the file is not TOML, or a setting is unknown or not allowed.
    """
    try:
        document = _parsed(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}", "make it readable") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deep", "correct it, or run elsewhere") from error
    except ValueError as error:  # both TOMLDecodeError and UnicodeDecodeError
        raise UserError(f"{path}: not valid TOML: {error}", "correct it, or run elsewhere") from error
    tool = document.get("tool", {})
    table = tool.get("vqdoctor", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise UserError(f"{path}: tool.vqdoctor is not a table", "write [tool.vqdoctor] on a line of its own")
    return dict(_entries(table, path, ""))


def _parsed(path: Path) -> dict[str, Any]:
    """Return the table of a TOML file.

    Raises:
        ValueError: if it is not TOML, or would take long: a key of n parts takes the square of n.
    """
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"larger than {_LARGEST >> 10} KiB")
    text = path.read_text(encoding="utf-8")
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise ValueError(f"a line with more than {_MOST_DOTS:,} dots")
    return tomllib.loads(text)


def _entries(table: Mapping[str, object], path: Path, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a table and of the tables in it by the name of their option."""
    known = {
        name.removeprefix(prefix).partition(".")[0]
        for name, told in OPTIONS.items()
        if told.in_file and name.startswith(prefix)
    }
    for key, value in table.items():
        name, where = prefix + key, f"{path}: tool.vqdoctor.{prefix}{key}"
        if key not in known:
            raise UserError(f"{where}: no such setting", suggestion(key, known))
        if name in OPTIONS:
            kind = OPTIONS[name].kind
            checked = kind.parse(where, value)
            yield name, kind.below(where, path.parent, checked) if kind.below else checked
        elif isinstance(value, Mapping):
            yield from _entries(value, path, f"{name}.")
        else:
            raise UserError(f"{where}: not a table", f"write [tool.vqdoctor.{name}] on a line of its own")


def _beside_flags(told: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the file, without the code and data that flags replace or that are of no use."""
    gone: set[str] = set()
    if given.get("bare"):
        gone |= {*MODEL_NAMES}
    if "task" in given:
        gone |= {"model", *OF_MODEL, "data"}
    if "model" in given:
        gone |= {"task", *(OF_MODEL if "model" in told else ())}
    if "data" in given:
        gone |= {"task"}
    named = {*given, *told} - gone
    if "model" not in named:
        gone |= {*OF_MODEL}
    if not named & {"task", "model"}:
        gone |= {"trained-vq-weight"}
    return {name: value for name, value in told.items() if name not in gone}
