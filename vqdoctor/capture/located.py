"""Which module is the VQ layer of each codebook, and whether a gradient path can be judged there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from vqdoctor.capture.vectors import channel_axis
from vqdoctor.capture.watch import Call, Watch

NO_MODULE = "no module around this codebook maps a float input to a float output of its shape"
INDICES_ONLY = "the layer gives indices alone, and no z_q"
INLINE = "the model looks its codes up itself, outside a VQ layer: no module shows z_e and z_q"
METHODS_ONLY = (
    "this implementation quantizes in its encode and decode methods, which pass no gradient: it has no "
    "training path to judge"
)
IN_EVAL = "the layer is in eval mode while the model trains, and passes no gradient there"
FROZEN = "the layer and all before it are frozen and run under no_grad"
NOT_CALLED = "the model never calls the layer in train mode"


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where a layer is.

    Attributes:
        path: of the module whose input is z_e and whose output is z_q, or of the nearest to one.
        lookup: path of the module in it that gets the vectors in the codebook's own dimension; None if no
            module does.
        gap: why no gradient can be judged there; "" where it can.
        maps: whether z_e and z_q are seen there; else its codes alone.
    """

    path: str
    lookup: str | None = None
    gap: str = ""
    maps: bool = True


def judge(
    model: nn.Module,
    paths: Sequence[str],
    watched: Mapping[str, Watch],
    dims: Sequence[int],
) -> Located | None:
    """Return which of the candidates, innermost first, is the VQ layer; None if none was used.

    Of those that map a float input to a float output of its shape, the innermost that passes a
    gradient; where none does, the innermost with the usual batch axis. Only the innermost's output may have
    another dimension.

    Args:
        model: the copy that ran.
        paths: the candidates.
        watched: their calls in train mode.
        dims: what the codebook may be asked for: D, or D for each of the heads.
    """
    calls = {path: _mapping(watched[path]) for path in paths}
    mapping = [(path, call) for path, call in calls.items() if call is not None]
    mapping = [(path, c) for path, c in mapping if path == mapping[0][0] or _same_shape(c)]
    if not mapping:
        return _unmapped(paths, watched)
    alive = [(p, c) for p, c in mapping if not watched[p].by_method and passes_gradient(c)]
    path, call = (alive or [(p, c) for p, c in mapping if _is_alike(c, mapping[-1][1])])[0]
    inward = paths[: paths.index(path) + 1]
    lookup = next((p for p in inward if lookups(watched[p], dims)), None)
    return Located(path=path, lookup=lookup, gap="" if alive else _gap(model, path, call, watched[path]))


def _unmapped(paths: Sequence[str], watched: Mapping[str, Watch]) -> Located | None:
    for path in paths:
        if any(call.indices is not None for call in watched[path].calls):
            return Located(path=path, gap=INDICES_ONLY, maps=False)
    for path in paths:
        if watched[path].fetched:
            return Located(path=path, gap=INLINE, maps=False)
    return None


def _gap(model: nn.Module, path: str, call: Call, watched: Watch) -> str:
    if watched.by_method:
        return METHODS_ONLY
    if not call.training:
        return IN_EVAL
    if not call.recorded and not _trains_until(model, path):
        return FROZEN
    return ""


def _trains_until(model: nn.Module, path: str) -> bool:
    """Whether any parameter of the layer, or of what the model holds before it, is trained."""
    names = [name for name, _ in model.named_parameters()]
    inside = [i for i, name in enumerate(names) if name.startswith(f"{path}.")]
    last = inside[-1] if inside else len(names) - 1
    return any(p.requires_grad for i, p in enumerate(model.parameters()) if i <= last)


def _is_alike(call: Call, outermost: Call) -> bool:
    """Whether the input's batch axis is that of the outermost module: an inner one may have heads first."""
    return (call.z_e.ndim, call.z_e.shape[0]) == (outermost.z_e.ndim, outermost.z_e.shape[0])


def _mapping(watched: Watch) -> Call | None:
    return next((call for call in watched.calls if call.z_q is not None), None)


def lookups(watched: Watch, dims: Sequence[int]) -> list[Call]:
    """Return the calls whose vectors have the codebook's dimension; a method is nearer to it."""
    return [call for call in watched.methods or watched.forwards if _is_asked(call, dims)]


def _is_asked(call: Call, dims: Sequence[int]) -> bool:
    shape = None if call.indices is None else tuple(call.indices.shape)
    axis = channel_axis(tuple(call.z_e.shape), dims[0], shape, call.z_q)
    return call.z_e.ndim > 1 and call.z_e.shape[axis] in dims


def _same_shape(call: Call) -> bool:
    return call.z_q is not None and call.z_q.shape == call.z_e.shape


def stop_dropping_levels(model: nn.Module, paths: Sequence[str]) -> None:
    """Put the modules that hold several of the layers, but not the layers, in eval mode.

    In training a residual quantizer with quantizer dropout leaves out its deeper levels at random, so
    that some would never be seen.
    """
    holders = {
        parent
        for path in paths
        for parent in _parents(path)
        if sum(other.startswith(f"{parent}.") for other in paths) > 1
    }
    for parent in holders:
        model.get_submodule(parent).training = False


def _parents(path: str) -> list[str]:
    tokens = path.split(".")
    return [".".join(tokens[:i]) for i in range(1, len(tokens))]


def passes_gradient(call: Call) -> bool:
    """Whether a gradient passes from a call's z_q to its z_e."""
    if call.z_q is None or not call.z_q.requires_grad or not call.z_e.requires_grad:
        return False
    sent = torch.randn(call.z_q.shape, generator=torch.Generator().manual_seed(0)).to(call.z_q)
    (g,) = torch.autograd.grad(call.z_q, call.z_e, sent, retain_graph=True, allow_unused=True)
    return _any(g)


def _any(g: torch.Tensor | None) -> bool:
    return g is not None and bool(g.any())
