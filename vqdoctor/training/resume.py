"""The state of an unfinished retraining on disk: whole or not at all, at any moment."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqdoctor.checkpoint import Inert, LazyTensor, open_checkpoint
from vqdoctor.checkpoint.dtypes import DTYPES
from vqdoctor.core.errors import CheckpointError, UserError
from vqdoctor.core.files import beside
from vqdoctor.models.tensors import mapped

KIND = "vqdoctor-retraining"
"""The field "kind" of every such state."""
FORMAT = 3
"""The number of the state's layout: a state of another one is not taken up."""
SUFFIX = ".resume"
"""The suffix after the output's name for the state beside it."""
OUTPUT = "output"
"""The field for the digest of the output that an interrupted run wrote: no other file is written over."""
RESTART = "delete the .resume file and start again"
"""How a user gets on from a state that is damaged."""
_DTYPES = {f"torch.{name}": getattr(torch, name) for name in DTYPES if hasattr(torch, name)}
"""The reader calls a dtype by its name."""


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
                torch.save(mapped(state, torch.Tensor.detach), file)  # without what Python noted on a tensor
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError of torch's writer
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it cannot be written"
        raise UserError(f"{path}: {reason}", "make room, or write elsewhere with -o") from error


def load_state(path: Path) -> dict[str, Any]:
    """Return the state that `save_state` wrote, read as any other checkpoint is: nothing in it is executed.

    Raises:
        UserError: if it cannot be read, or is not such a state.
    """
    try:
        checkpoint = open_checkpoint(path)
        state = _as_torch(checkpoint.tree, path)
        if checkpoint.notes:  # a tensor or a branch was left out: the run would not go on as it was
            raise CheckpointError(path, "; ".join(checkpoint.notes))
    except CheckpointError as error:
        raise _unreadable(path, error) from error
    if not isinstance(state, dict) or state.get("kind") != KIND:
        raise UserError(f"{path}: is not a state of a retraining", "delete it, or write elsewhere with -o")
    return state


def digest_of(output: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    with output.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_written(output: Path) -> bool:
    """Whether the file at the output is the one that its unfinished run wrote when it was interrupted.

    Raises:
        UserError: if the state cannot be read.
    """
    path = state_path(output)
    if not (path.exists() and output.is_file()):
        return False
    try:
        tree = open_checkpoint(path).tree
    except CheckpointError as error:
        raise _unreadable(path, error) from error
    return isinstance(tree, dict) and tree.get("kind") == KIND and tree.get(OUTPUT) == digest_of(output)


def _unreadable(path: Path, error: CheckpointError) -> UserError:
    return UserError(f"{path}: is not a readable state of a retraining ({error.kind})", "delete it")


def _as_torch(node: Any, path: Path) -> Any:
    """Return a node of a checkpoint's tree with the tensors and dtypes of torch in it.

    Raises:
        CheckpointError: if it holds an object, since none is ever made from a file, or damaged bytes.
    """
    match node:
        case dict():
            return {key: _as_torch(child, path) for key, child in node.items()}
        case list() | tuple():
            return type(node)(_as_torch(child, path) for child in node)
        case LazyTensor() if hasattr(torch, node.dtype):
            # A copy, since the reader's arrays cannot be written to.
            return torch.from_numpy(np.array(node.read())).to(getattr(torch, node.dtype))
        case LazyTensor():
            raise CheckpointError(path, f"torch {torch.__version__} has no {node.dtype}")
        case Inert():
            raise CheckpointError(path, f"it holds a {node.module}.{node.name}")
        case str() if node in _DTYPES:
            return _DTYPES[node]
    return node
