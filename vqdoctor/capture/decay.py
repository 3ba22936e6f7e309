"""The EMA decay of a layer, where its modules keep one."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vqdoctor.capture.layer import CapturedLayer

DECAYS = ("decay", "_decay", "ema_decay", "gamma", "discount")
"""Names under which layers keep their EMA decay."""


def set_decay(layer: CapturedLayer, decay: float) -> bool:
    """Set the EMA decay of a layer's modules; return whether any of them keeps one."""
    kept = list(_decays(layer))
    for module, name, _ in kept:
        setattr(module, name, decay)
    return bool(kept)


def own_decay(layer: CapturedLayer) -> float | None:
    """Return the EMA decay that a layer's modules keep; None is unknown."""
    return next((decay for _, _, decay in _decays(layer)), None)


def decay_beside(model: torch.nn.Module, tensor: str) -> float | None:
    """Return the EMA decay that the module with a tensor of that name keeps; None is unknown."""
    try:
        owner = model.get_submodule(tensor.rpartition(".")[0])
    except AttributeError:
        return None
    return next((decay for _, decay in _kept(owner)), None) if tensor else None


def _decays(layer: CapturedLayer) -> Iterator[tuple[torch.nn.Module, str, float]]:
    """Yield every EMA decay of a layer's modules: the module, the attribute's name, its value."""
    for module in layer.module.modules():
        for name, decay in _kept(module):
            yield module, name, decay


def _kept(module: torch.nn.Module) -> Iterator[tuple[str, float]]:
    for name in DECAYS:
        value = vars(module).get(name)
        if isinstance(value, float) and 0.0 < value < 1.0:
            yield name, value
