"""The files that a trainer leaves beside the weights: settings and progress. Nothing in them is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vqdoctor.checkpoint import Checkpoint, CheckpointError, Inert, open_checkpoint
from vqdoctor.core.json_text import parse

TRAINER_STATE = "trainer_state.json"
CONFIG = "config.json"
TRAINING_ARGUMENTS = "training_args.bin"
OPTIMIZERS = ("optimizer.pt", "optimizer.bin")
"""Names of transformers and of accelerate."""
_WEIGHTS = ("model.", "model-", "pytorch_model", "diffusion_pytorch_model")
_LARGEST_JSON = 64 << 20
_LOG = "log_history"


def is_trainers(checkpoint: Checkpoint) -> bool:
    """Whether a file has a name that transformers, diffusers or accelerate give to weights."""
    return checkpoint.path.name.startswith(_WEIGHTS)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; {} where there is none that can be read."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_JSON:
            return {}
        return parse(path.read_bytes())
    except (OSError, ValueError):
        return {}


def opened(path: Path) -> Any:
    """Return the tree of a saved file; None where there is none that can be read."""
    try:
        return open_checkpoint(path).tree if path.is_file() else None
    except (CheckpointError, OSError):
        return None


def settings_beside(checkpoint: Checkpoint) -> Iterator[tuple[str, Any]]:
    """Yield the name and the content of each file of settings beside a trainer's weights, the nearest first.

    A pickled object stays an inert record of its class and its attributes.
    """
    if not is_trainers(checkpoint):
        return
    folder = checkpoint.path.parent
    state = read_json(folder / TRAINER_STATE)
    if isinstance(state, dict):
        yield TRAINER_STATE, {key: value for key, value in state.items() if key != _LOG}
    yield CONFIG, read_json(folder / CONFIG)
    arguments = opened(folder / TRAINING_ARGUMENTS)
    if arguments is not None:
        kind = f" ({arguments.name})" if isinstance(arguments, Inert) else ""
        yield TRAINING_ARGUMENTS + kind, arguments
