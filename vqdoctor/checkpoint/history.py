"""The notes that earlier fixes wrote into a file about themselves: a list, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

RECORD = "vqdoctor.json"
"""Name of the record in a torch-zip file, beside data.pkl."""
METADATA = "vqdoctor"
"""Name of the entry in a safetensors file's `__metadata__`."""
MAX_BYTES = 1 << 20

Note = Mapping[str, Any]


def read_history(text: bytes | str) -> tuple[Note, ...]:
    """Return the notes, oldest first; only a list of objects is a history, anything else is empty."""
    try:
        notes = json.loads(text) if len(text) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        return ()
    return tuple(note for note in notes if isinstance(note, dict)) if isinstance(notes, list) else ()


def write_history(history: Sequence[Note], note: Note) -> str:
    """Return the notes with one more, as JSON; the oldest go where they would be too long.

    Raises:
        ValueError: if the note holds what JSON cannot say, such as NaN.
    """
    notes = [*history, note]
    while len(text := json.dumps(notes, allow_nan=False)) > MAX_BYTES and len(notes) > 1:
        notes.pop(0)
    return text
