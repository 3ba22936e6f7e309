"""From a codebook's key to the module whose input is z_e and whose output is z_q.

The key's own module need not be that layer: in vector-quantize-pytorch the codebook sits in an
inner module that has no gradient path even in health, and the straight-through estimator stands in
its parent. So the candidates are the key's module and its ancestors, as far up as an ancestor adds
nothing but projections; a whole encoder-decoder is never taken for a VQ layer.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.utils import parametrize

from vqdoctor.core.errors import UserError

_PROJECTIONS = (nn.Linear, nn.LayerNorm, nn.Identity, nn.Dropout)


def candidates(model: nn.Module, key: str) -> tuple[str, ...]:
    """Return the paths of the modules that may be the VQ layer of codebook `key`, innermost first.

    The path of the model itself is "".

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
        parent, _, child = path.rpartition(".")
        # The model itself is a VQ layer only where its codebook is its own or its child's.
        is_whole = not parent and len(found) > 1
        if is_whole or not _adds_only_projections(model.get_submodule(parent), child):
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
        # A parametrization (weight_norm) belongs to its owner, which is judged by its own class.
        if name and not f"{name}.".startswith(f"{child}.") and not _is_parametrization(parent, name):
            yield module


def _is_parametrization(parent: nn.Module, name: str) -> bool:
    owner, found, _ = f".{name}".partition(".parametrizations.")
    return bool(found) and parametrize.is_parametrized(parent.get_submodule(owner.lstrip(".")))
