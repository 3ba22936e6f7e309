"""Putting a checkpoint's tensors into a model, by name, without torch's own loader."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from vqdoctor.core.errors import UserError
from vqdoctor.core.frozen import frozen
from vqdoctor.layouts.view import Tensor


@frozen
class Loaded:
    """The result of a load: keys of the model that the file lacks, and the other way round."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def load_state(model: torch.nn.Module, entries: Mapping[str, Tensor]) -> Loaded:
    """Copy the tensors called as the model's own into the model.

    Args:
        model: freshly built, on the CPU.
        entries: clean state-dict names to tensors.

    Raises:
        UserError: if a tensor of the model has no shape yet, or another one than in the file, or if no name
            of the file is in the model.
    """
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    if lazy := {name: tensor for name, tensor in own.items() if is_lazy(tensor)}:
        what = f"the model has tensors without a shape until its first pass: {_few(lazy)}"
        raise UserError(what, "run one batch through it before you return it")
    common = [name for name in own if name in entries]
    if not common:
        hint = f"the model has {_few(own)}; the file has {_few(entries)}"
        raise UserError("the checkpoint and the model have no tensor name in common", hint)
    for name in common:
        stored, built = list(entries[name].shape), list(own[name].shape)
        if stored != built:
            what = f"{name} is {stored} in the checkpoint and {built} in the model"
            raise UserError(what, "build the model with the settings that it was trained with")
    with torch.no_grad():
        for name in common:
            # read() may hand out a read-only map of the file, which torch must not alias
            own[name].copy_(torch.from_numpy(np.array(entries[name].read())))
    filled = {own[name].data_ptr() for name in common}  # of tied tensors the file may hold one alone
    absent = (name for name in own if name not in entries)
    return Loaded(
        missing=tuple(name for name in absent if not own[name].numel() or own[name].data_ptr() not in filled),
        unexpected=tuple(name for name in entries if name not in own),
    )


def _few(names: Mapping[str, object]) -> str:
    shown = ", ".join(list(names)[:3])
    return f"{shown}, …" if len(names) > 3 else shown or "none"
