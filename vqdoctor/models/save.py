"""Saving a live model as the checkpoint that it would be."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from vqdoctor.core.errors import UserError


@contextlib.contextmanager
def saved(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, steps: int | None = None
) -> Iterator[Path]:
    """Save a live model as its checkpoint would be, for as long as it is examined.

    So a live model is examined as a file is: EMA counts against sums, the memory of Adam.
    """
    if not isinstance(model, torch.nn.Module):
        raise UserError(f"a {type(model).__name__} is neither a checkpoint nor a model", "give one of them")
    state: dict[str, object] = model.state_dict()
    if optimizer is not None:
        state = {"model": state, "optimizer": optimizer.state_dict()}
    elif steps is not None:
        state = {"model": state, "global_step": steps}
    with tempfile.TemporaryDirectory(prefix="vqdoctor-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "model.pt"
        torch.save(state, file)
        yield file
