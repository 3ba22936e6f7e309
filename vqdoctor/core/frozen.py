"""Frozen values with fields that are given by name, and no code that is generated for each class.

`dataclass(frozen=True, kw_only=True)` compiles six functions for each class, half a millisecond each, of a
start with some 200 of them. Here all classes share them; `fields` and `replace` of dataclasses work as usual.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from functools import cache
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose fields are given by name.

    >>> @frozen
    ... class Point:
    ...     x: int
    ...     y: int = 0
    >>> Point(x=1)
    Point(x=1, y=0)
    """
    made = dataclass(init=False, repr=False, eq=False, kw_only=True)(cls)
    for name, function in _SHARED.items():
        if name not in vars(cls) or name in ("__init__", "__hash__"):
            setattr(made, name, function)
    return made


def _init(self: Any, **given: Any) -> None:
    own = vars(self)
    cls: Any = type(self)
    for name, default, factory in _parameters(cls):
        if name in given:
            own[name] = given.pop(name)
        elif default is not MISSING:
            own[name] = default
        elif factory is not MISSING:
            own[name] = factory()
        else:
            raise TypeError(f"{type(self).__name__}() lacks the argument {name!r}")
    if given:
        raise TypeError(f"{type(self).__name__}() has no argument {next(iter(given))!r}")
    if after := getattr(self, "__post_init__", None):
        after()


@cache
def _parameters(cls: Any) -> tuple[tuple[str, Any, Any], ...]:
    """Return name, default and factory of each field: values are made by the thousand."""
    return tuple((known.name, known.default, known.default_factory) for known in fields(cls))


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, known.name) for known in fields(self) if known.compare)


def _eq(self: Any, other: object) -> Any:
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _repr(self: Any) -> str:
    shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
    return f"{type(self).__qualname__}({shown})"


def _setattr(self: Any, name: str, _: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


_SHARED = {
    "__init__": _init,
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
}
