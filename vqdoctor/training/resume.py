"""The state of an unfinished retraining on disk: whole or not at all, at any moment."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from vqdoctor.core.errors import UserError
from vqdoctor.core.files import beside

KIND = "vqdoctor-retraining"
"""The field "kind" of every such state."""
SUFFIX = ".resume"
"""What is put behind the output's name for the state beside it."""
RESTART = "delete the .resume file and start again"
"""How a user gets on from a state that is damaged."""


def state_path(output: Path) -> Path:
    """Return where the state of the run that writes `output` is kept."""
    return output.with_name(output.name + SUFFIX)


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write the state to a temporary file beside `path`, then rename it over `path`.

    Raises:
        UserError: if it cannot be written.
    """
    try:
        with beside(path) as temporary:
            with temporary.open("xb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError of torch's writer
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it cannot be written"
        raise UserError(f"{path}: {reason}", "make room, or write elsewhere with -o") from error


def load_state(path: Path) -> dict[str, Any]:
    """Return the state that `save_state` wrote; nothing in it is executed.

    Raises:
        UserError: if it cannot be read, or is no such state.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        raise UserError(f"{path}: is no state of a retraining that can be read", "delete it") from error
    if not isinstance(state, dict) or state.get("kind") != KIND:
        raise UserError(f"{path}: is no state of a retraining", "delete it, or write elsewhere with -o")
    return state
