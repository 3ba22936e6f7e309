"""The settings of a run: defaults, below `[tool.vqdoctor]` of the nearest pyproject.toml, below flags."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from vqdoctor.core.assertion import GateRules, GateTable, parse_gate
from vqdoctor.core.errors import UserError
from vqdoctor.core.errors import suggestion as suggestion
from vqdoctor.core.levels import Severity

Limits = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a run was told, wherever it was told it.

    Attributes:
        select: codes of checks to run, or beginnings of codes; empty is all.
        ignore: codes of checks to leave out, or beginnings of codes.
        limits: changed limits: code to name to value.
        verify: whether to read and check every byte of the checkpoint.
        seed: seed of everything that is drawn.
        layer: the only VQ layer to examine; None is all.
        codebook_key: the tensor to take as a codebook; None is a guess.
        layout: "kd" or "dk", how that tensor lies; None is a guess.
        histogram: whether the report carries the usage of every code.
        device: "auto", "cpu", "cuda" or "mps".
        checkpoint: what `fix` mends where the command line names nothing, from the folder of pyproject.toml.
        fail_on: "error", "warning" or "never".
        format: name of the format of standard output.
        gate: what a gate asserts.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    limits: Limits = field(default_factory=dict)
    verify: bool = False
    seed: int = 0
    layer: str | None = None
    codebook_key: str | None = None
    layout: Literal["kd", "dk"] | None = None
    histogram: bool = False
    device: str = "auto"
    checkpoint: str | None = None
    fail_on: str = "error"
    format: str = "rich"
    gate: GateRules = field(default_factory=GateRules)

    @property
    def bar(self) -> Severity | None:
        """The severity from which a finding fails the run; None if none does."""
        return None if self.fail_on == "never" else Severity.parse(self.fail_on)


def configure(
    start: Path, flags: Mapping[str, object], gate_flags: Mapping[str, object] | None = None
) -> Config:
    """Return the settings for a run in the folder `start`.

    Args:
        start: where the search for pyproject.toml begins, upwards.
        flags: settings by name as the flags are written ("fail-on"); None is a flag not given.
        gate_flags: settings of the table `gate` likewise ("min-perplexity").

    Raises:
        UserError: if a name is unknown or a value cannot be; the message says where and what can be.
    """
    file = nearest_pyproject(start)
    told = read_pyproject(file) if file else {}
    given = {name: value for name, value in flags.items() if value is not None}
    values = {**told, **_parse_all(given, "--")}
    # A flag moves its own limit and leaves those that the file moved.
    values["limits"] = _merge(told.get("limits", {}), values.get("limits", {}))
    asserted = {name: value for name, value in (gate_flags or {}).items() if value is not None}
    values["gate"] = told.get("gate", GateTable()).under(parse_gate(asserted, "--")).rules()
    return Config(**{name.replace("-", "_"): value for name, value in values.items()})


def nearest_pyproject(start: Path) -> Path | None:
    """Return the pyproject.toml in `start` or in the nearest folder above it; None if there is none."""
    folder = start.absolute()
    candidates = (place / "pyproject.toml" for place in (folder, *folder.parents))
    return next((file for file in candidates if file.is_file()), None)


def read_pyproject(path: Path) -> dict[str, Any]:
    """Return the settings of the table `[tool.vqdoctor]`, checked; empty where there is no such table.

    Raises:
        UserError: if the file is no TOML, or a setting is unknown or cannot be.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}", "make it readable") from error
    except ValueError as error:  # both TOMLDecodeError and UnicodeDecodeError
        raise UserError(f"{path}: not valid TOML: {error}", "mend it, or run elsewhere") from error
    tool = document.get("tool", {})
    table = tool.get("vqdoctor", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise UserError(f"{path}: tool.vqdoctor is no table", "write [tool.vqdoctor] on a line of its own")
    return _parse_all(table, f"{path}: tool.vqdoctor.")


def parse_limit(text: str) -> dict[str, dict[str, float]]:
    """Return the limit that `CODE.name=value` sets.

    Raises:
        UserError: if the text has another form.
    """
    key, equals, value = text.partition("=")
    code, dot, name = key.strip().partition(".")
    if not (equals and dot and code and name):
        raise UserError(f"--limit {text}: not of the form CODE.name=value", "such as VQ502.warn_below=0.5")
    try:
        number = float(value)
    except ValueError:
        raise UserError(f"--limit {text}: {value!r} is no number", "such as VQ502.warn_below=0.5") from None
    return {code.upper(): {name: _finite(f"--limit {key}", number)}}


def parse_limits(texts: Iterable[str]) -> dict[str, dict[str, float]]:
    """Return the limits that several `CODE.name=value` set; the last word on one limit counts."""
    merged: dict[str, dict[str, float]] = {}
    for text in texts:
        merged = _merge(merged, parse_limit(text))
    return merged


def _merge(below: Limits, above: Limits) -> dict[str, dict[str, float]]:
    return {code: {**below.get(code, {}), **above.get(code, {})} for code in (*below, *above)}


def _parse_all(table: Mapping[str, object], place: str) -> dict[str, Any]:
    values = {}
    for name, value in table.items():
        if name not in PARSERS:
            raise UserError(f"{place}{name}: no such setting", suggestion(name, PARSERS))
        values[name] = PARSERS[name](place + name, value)
    return values


def _codes(where: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where}: not a list of codes", 'such as ["VQ101", "VQ5"]')
    codes = tuple(code.strip().upper() for item in value for code in item.split(","))
    if "" in codes:
        raise UserError(f"{where}: an empty code", "such as VQ101 or VQ5")
    return codes


def _limits(where: str, value: object) -> dict[str, dict[str, float]]:
    """Read limits as a table of tables; TOML spells a quoted "VQ502.warn_below" flat."""
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: no table", 'such as "VQ502.warn_below" = 0.5')
    limits: dict[str, dict[str, float]] = {}
    for key, item in value.items():
        code, dot, name = str(key).partition(".")
        inner = {name: item} if dot else item
        if not isinstance(inner, Mapping):
            raise UserError(f"{where}.{key}: names no limit", 'such as "VQ502.warn_below" = 0.5')
        checked = {str(k): _finite(f"{where}.{code}.{k}", v) for k, v in inner.items()}
        limits = _merge(limits, {code.upper(): checked})
    return limits


def _gate(where: str, value: object) -> GateTable:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: no table", "write [tool.vqdoctor.gate] on a line of its own")
    return parse_gate(value, f"{where}.")


def _finite(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where}: {value!r} is no finite number", "write a number, such as 0.5")
    return float(value)


def _flag(where: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{where}: {value!r} is neither true nor false", "write true or false")
    return value


def _seed(where: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise UserError(f"{where}: {value!r} is no seed", "write a whole number, 0 or more")
    return value


def _text(where: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{where}: {value!r} is no name", "write a name in quotes")
    return value


def _choice(where: str, value: object, *, of: tuple[str, ...]) -> str:
    if value not in of:
        raise UserError(f"{where}: {value!r} is none of {', '.join(of)}")
    return str(value)


PARSERS: Mapping[str, Callable[[str, object], Any]] = {
    "select": _codes,
    "ignore": _codes,
    "limits": _limits,
    "verify": _flag,
    "seed": _seed,
    "layer": _text,
    "codebook-key": _text,
    "layout": partial(_choice, of=("kd", "dk")),
    "histogram": _flag,
    "device": partial(_choice, of=("auto", "cpu", "cuda", "mps")),
    "checkpoint": _text,
    "fail-on": partial(_choice, of=("error", "warning", "never")),
    "format": _text,
    "gate": _gate,
}
"""Every setting, under the name of its flag, with the function that checks its value."""
