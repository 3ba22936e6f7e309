"""One codec between frozen dataclasses and the plain values of JSON, driven by the fields' type hints.

A field has its own name in JSON, or the one that its metadata gives under "json". `derived` of a class lists
names in JSON that follow from the rest: `encode` writes the properties among them, `decode` passes all of
them over. A level is written by its label, another IntEnum by its number. A class with a `registry` is one
of several kinds, and `kind` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import IntEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vqdoctor.core.errors import UserError
from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Level

T = TypeVar("T")
Reader = Callable[[object], Any]
"""Checks one plain value and returns what its field holds."""

_PLAIN = frozenset({str, int, float, bool, NoneType})
_LARGEST = 2**1023


def encode(value: object) -> dict[str, Any]:
    """Return a dataclass as plain values, in the order of its fields."""
    plain: dict[str, Any] = _encode(value)
    return plain


def decode(kind: type[T], data: object, name: str, help: str = "write it again") -> T:
    """Return the dataclass that `encode` wrote, checked and built in one walk.

    Args:
        kind: the dataclass.
        data: the plain values, which may come from anyone.
        name: the name of the whole in the message ("report").
        help: how the user gets an undamaged one.

    Raises:
        UserError: if a value is not of its field's type, or a name is missing or unknown.
    """
    hint: Any = kind
    try:
        built: T = _reader(hint)(data)
    except _Misfit as misfit:
        path = name + misfit.path[:80]
        raise UserError(f"the {name} is damaged: {path} {misfit.says}", help) from None
    return built


def _encode(value: object) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, IntEnum):
        return value.label if isinstance(value, Level) else int(value)
    if isinstance(value, Mapping):
        return {name: _encode(item) for name, item in value.items()}
    if is_dataclass(value):
        kind: Any = type(value)
        shape = _shape(kind)
        return shape.tag | {name: _encode(getattr(value, own)) for name, own in shape.written}
    return [_encode(item) for item in value] if isinstance(value, tuple) else value


class _Misfit(Exception):
    """A value that does not fit its field, and the path to it, which grows on the way out."""

    def __init__(self, says: str, path: str = "") -> None:
        self.says = says
        self.path = path

    @classmethod
    def of(cls, value: object, path: str = "") -> _Misfit:
        shown = type(value).__name__ if isinstance(value, list | tuple | dict) else repr(value)
        return cls(f"is {shown if len(shown) <= 40 else shown[:40] + '…'}", path)

    def under(self, step: str) -> _Misfit:
        return _Misfit(self.says, step + self.path)


@frozen
class _Shape:
    """The fields of a class by their names in JSON."""

    readers: dict[str, tuple[str, Reader]]
    defaults: dict[str, object]
    required: frozenset[str]
    passed_over: frozenset[str]
    written: tuple[tuple[str, str], ...]
    tag: dict[str, str]


@cache
def _shape(kind: Any) -> _Shape:
    hints = get_type_hints(kind)
    named = {field.metadata.get("json", field.name): field for field in fields(kind)}
    derived = getattr(kind, "derived", ())
    tag = {"kind": kind.kind} if hasattr(kind, "registry") else {}
    defaults = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in named.values()
        if field.default is not MISSING or field.default_factory is not MISSING
    }
    return _Shape(
        readers={name: (field.name, _reader(hints[field.name])) for name, field in named.items()},
        defaults=defaults,
        required=frozenset(name for name, field in named.items() if field.name not in defaults),
        passed_over=frozenset((*derived, *tag)),
        written=(
            *((name, field.name) for name, field in named.items()),
            *((name, name) for name in derived if hasattr(kind, name)),
        ),
        tag=tag,
    )


@cache
def _reader(hint: Any) -> Reader:
    """Return the reader of a type. It looks into a class when the first value of that class comes."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        (option,) = (_reader(argument) for argument in arguments if argument is not NoneType)
        return lambda value: None if value is None else option(value)
    if origin is Literal:
        return _listed({option: option for option in arguments})
    if origin is tuple:
        return _many(list, _reader(arguments[0]), "[{}]")
    if origin is not None:
        return _many(dict, _reader(arguments[1]), ".{}")
    if is_dataclass(hint):
        return _object(hint)
    if issubclass(hint, IntEnum):
        by_label = issubclass(hint, Level)
        return _listed({member.label if by_label else member.value: member for member in hint})
    return _number if hint is float else _exactly(hint)


def _exactly(kind: type) -> Reader:
    def read(value: object) -> object:
        if type(value) is kind:  # so True is not a number
            return value
        raise _Misfit.of(value)

    return read


def _number(value: object) -> object:
    # Refuses NaN and infinity, and integers beyond the largest float.
    if (type(value) is float and value - value == 0) or (type(value) is int and abs(value) < _LARGEST):
        return value
    raise _Misfit.of(value)


def _listed(members: Mapping[Any, object]) -> Reader:
    def read(value: object) -> object:
        if type(value) in (str, int) and value in members:
            return members[value]
        raise _Misfit.of(value)

    return read


def _many(kind: Any, item: Reader, step: str) -> Reader:
    """Return the reader of a list or an object of any number of items; `step` is the path to one."""

    def read(value: Any) -> object:
        if type(value) is not kind:
            raise _Misfit.of(value)
        built: dict[object, object] = {}
        name = None
        try:
            for name, part in enumerate(value) if kind is list else value.items():
                built[name] = item(part)
        except _Misfit as misfit:
            raise misfit.under(step.format(name)) from None
        return tuple(built.values()) if kind is list else built

    return read


def _object(hint: Any) -> Reader:
    kinds: Mapping[object, type] | None = getattr(hint, "registry", None)

    def read(value: object) -> object:
        if type(value) is not dict:
            raise _Misfit.of(value)
        kind = hint
        if kinds is not None:
            named = value.get("kind")
            if type(named) is not str or named not in kinds:
                raise _Misfit.of(named, ".kind")
            kind = kinds[named]
        shape = _shape(kind)
        values: dict[str, object] = {}
        try:
            for name, part in value.items():
                if name in shape.readers:
                    own, reader = shape.readers[name]
                    values[own] = reader(part)
                elif name not in shape.passed_over:
                    raise _Misfit("is unknown")
        except _Misfit as misfit:
            raise misfit.under(f".{name}") from None
        if missing := shape.required - value.keys():
            raise _Misfit(f"has no {min(missing)}")
        # The constructor of a frozen class takes as long as all the rest, to check the same types again.
        built = object.__new__(kind)
        built.__dict__.update(shape.defaults | values)
        return built

    return read
