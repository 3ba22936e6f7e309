"""What a test needs of a newer release than the oldest that is supported, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch


def torch_since(release: str, what: str) -> pytest.MarkDecorator:
    """Skip where torch is older than the first release that has what is named."""
    return pytest.mark.skipif(torch.__version__ < release, reason=f"{what} came with torch {release}")


def dtypes(names: Iterable[str], *, saved: bool = False) -> list[Any]:
    """Return names of dtypes to be tried, each where torch has it, and where `saved`, can save it."""
    newer = {"float8_e8m0fnu": torch_since("2.7", "torch.float8_e8m0fnu")}
    if saved:
        newer |= {name: torch_since("2.6", f"saving torch.{name}") for name in ("uint16", "uint32", "uint64")}
    return [pytest.param(name, marks=newer.get(name, ())) for name in names]
