"""The process group that the user's code sees, as in its own training."""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType

import pytest

from vqdoctor.models.process_group import _ask_anew


def test_libraries_ask_anew_whether_they_are_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also beside a name that Python bars from import, which `sys.modules` holds as None."""
    asked: list[None] = []
    library = ModuleType("library")
    library.is_distributed = cache(lambda: asked.append(None))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "barred", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "library", library)
    library.is_distributed()
    _ask_anew()
    library.is_distributed()
    assert len(asked) == 2
