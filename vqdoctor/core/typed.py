"""Whether values have the types that their class gives them: a file that was read back may be anyone's."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def misfits(value: Any, place: str) -> Iterator[str]:
    """Yield what in a dataclass, down to its last part, is not of the type that its class says.

    Args:
        value: the dataclass.
        place: what stands before the names in the messages ("report").
    """
    kind: Any = type(value)
    for name, hint in _hints(kind).items():
        yield from _misfits(getattr(value, name), hint, f"{place}.{name}")


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _misfits(value: object, hint: Any, place: str) -> Iterator[str]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if not any(_fits(value, option) for option in arguments):
            # An object that is there but damaged is told from within.
            whole = next((option for option in arguments if is_dataclass(value) and _is(value, option)), None)
            yield from misfits(value, place) if whole else _wrong(value, place)
    elif origin is Literal:
        if value not in arguments:
            yield from _wrong(value, place)
    elif origin is tuple:
        if not isinstance(value, tuple):
            yield from _wrong(value, place)
            return
        for i, item in enumerate(value):
            yield from _misfits(item, arguments[0], f"{place}[{i}]")
    elif origin is not None:  # a mapping from names
        if not isinstance(value, Mapping):
            yield from _wrong(value, place)
            return
        for key, item in value.items():
            yield from _misfits(item, arguments[1], f"{place}.{key}")
    elif not _is(value, hint):
        yield from _wrong(value, place)
    elif is_dataclass(value):
        yield from misfits(value, place)


def _fits(value: object, hint: Any) -> bool:
    return next(_misfits(value, hint, ""), None) is None


def _is(value: object, kind: Any) -> bool:
    """Whether a value is of a plain class; True is no number, and neither is NaN."""
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    if kind is int:
        return type(value) is int
    return isinstance(value, kind)


def _wrong(value: object, place: str) -> Iterator[str]:
    shown = type(value).__name__ if isinstance(value, list | tuple | dict) else repr(value)
    yield f"{place} is {shown if len(shown) <= 40 else shown[:40] + '…'}"
