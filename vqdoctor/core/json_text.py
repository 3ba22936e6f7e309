"""JSON from strangers: refused before it is built where it would fill the memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

MAX_CONTAINERS = 100_000
"""Lists and objects, of up to 250 bytes each in memory; a report has some 150 for each VQ layer."""
MAX_VALUES = 5_000_000
"""Commas, of some 40 bytes for the value before each."""


class TooMuch(ValueError):
    """A JSON text holds more than it may; whether it is valid is not known."""


def parse(
    text: bytes | str,
    pairs: Callable[[list[tuple[str, object]]], object] | None = None,
    containers: int = MAX_CONTAINERS,
) -> Any:
    """Return the value of a JSON text.

    Args:
        text: the JSON; bytes are UTF-8, with or without a byte order mark.
        pairs: makes an object of its names and values, as in `json.loads`.
        containers: lists and objects that it may hold.

    Raises:
        TooMuch: if it holds too much.
        ValueError: if it is not JSON, or is nested too deep.
    """
    text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    if text.count("{") + text.count("[") > containers or text.count(",") > MAX_VALUES:
        raise TooMuch(f"more than {containers:,} lists and objects, or {MAX_VALUES:,} values")
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
