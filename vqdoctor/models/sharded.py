"""A model of which `fully_shard` (FSDP2) leaves each process a part, as one that a single process can run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_HOOKS = (
    "_forward_pre_hooks", "_forward_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)  # fmt: skip
_STATES = ("__composable_api", "_is_fsdp_managed_module", "_fsdp_use_orig_params")
"""Beginnings of the names of what torch notes on a module (torch/distributed/_composable/contract.py)."""


def is_sharded(model: nn.Module) -> bool:
    """Whether a process has a part of some tensor alone."""
    tensors = (*model.parameters(), *model.buffers())
    return any(callable(getattr(tensor, "full_tensor", None)) for tensor in tensors)


@torch.no_grad()
def gathered(model: nn.Module) -> nn.Module:
    """Return a freshly built model with whole tensors and without the hooks that gather and part them.

    The model itself is changed. All processes gather together.
    """
    if not is_sharded(model):
        return model
    known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for module in model.modules():
        every: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for own in every:
            for name, tensor in own.items():
                if tensor is None or not callable(full := getattr(tensor, "full_tensor", None)):
                    continue
                if id(tensor) not in known:  # tied tensors stay one
                    known[id(tensor)] = (tensor, _like(tensor, full().detach().clone()))
                own[name] = known[id(tensor)][1]
        _release(module)
    return model


def _like(tensor: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return nn.Parameter(whole, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else whole


def _release(module: nn.Module) -> None:
    """Take off a module what `fully_shard` put on it: a class of its own, hooks and a state."""
    kinds: Any = type(module).__bases__
    if kinds[0].__name__ == "FSDPModule":
        module.__class__ = kinds[1]
    for name in _HOOKS:
        hooks = getattr(module, name)
        for number, hook in list(hooks.items()):
            if getattr(getattr(hook, "hook", hook), "__qualname__", "").startswith("FSDP"):
                del hooks[number]
    for name in [name for name in vars(module) if name.startswith(_STATES)]:
        del vars(module)[name]
