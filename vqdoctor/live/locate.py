"""From a codebook's key to the module whose input is z_e and whose output is z_q.

The key's own module need not be that layer: in vector-quantize-pytorch the codebook sits in an
inner module that has no gradient path even in health, and the straight-through estimator stands in
its parent. So the candidates are the key's module and its ancestors, as far up as an ancestor adds
nothing but projections; a whole encoder-decoder is never taken for a VQ layer.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from vqdoctor.core.errors import UserError

_PROJECTIONS = (nn.Linear, nn.LayerNorm, nn.Identity, nn.Dropout)


def candidates(model: nn.Module, key: str) -> tuple[str, ...]:
    """Return the paths of the modules that may be the VQ layer of codebook `key`, innermost first.

    Raises:
        UserError: if the model has no module at that path.
    """
    path = key.rpartition(".")[0]
    try:
        model.get_submodule(path)
    except AttributeError:
        raise UserError(
            f"the model has no module {path!r}, where the checkpoint keeps its codebook {key!r}",
            "pass the model that the checkpoint was saved from",
        ) from None
    found = [path]
    while path:
        parent = path.rpartition(".")[0]
        if not parent or not _adds_only_projections(model.get_submodule(parent), path[len(parent) + 1 :]):
            break
        found.append(parent)
        path = parent
    return tuple(found)


def _adds_only_projections(parent: nn.Module, child: str) -> bool:
    if isinstance(parent, nn.ModuleList | nn.ModuleDict):
        return False
    return all(
        isinstance(module, _PROJECTIONS) or _is_pointwise(module)
        for module in _others(parent, child)
        if next(module.parameters(recurse=False), None) is not None
    )


def _is_pointwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and set(module.kernel_size) == {1}


def _others(parent: nn.Module, child: str) -> Iterator[nn.Module]:
    for name, module in parent.named_modules():
        if name and name != child and not name.startswith(f"{child}."):
            yield module


def tensors_of(value: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in an argument or output: a tensor, or tuples, lists and dicts of them."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_of(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_of(item)
