"""Finding the pieces: one piece is one module of a package, under an agreed name."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def pieces(package: ModuleType, attribute: str, kind: type[T]) -> tuple[T, ...]:
    """Import every public module of `package` and return what each calls `attribute`, by module name.

    Raises:
        TypeError: if a module does not define `attribute` as a `kind`. Modules whose names begin
            with an underscore are helpers and are passed over.
    """
    found = []
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        piece = getattr(module, attribute, None)
        if not isinstance(piece, kind):
            raise TypeError(f"{module.__name__} must define {attribute} as a {kind.__name__}")
        found.append(piece)
    return tuple(found)
