"""From a codebook's key to the module whose input is z_e and whose output is z_q, by what it does.

The key's own module need not be that layer: in vector-quantize-pytorch the codebook sits in an
inner module that has no gradient path even in health, and the straight-through estimator is in
its parent. So the candidates are the key's module and its ancestors, as far up as an ancestor adds
only projections; a whole encoder-decoder is never taken for a VQ layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize

from vqdoctor.capture.call import Call
from vqdoctor.capture.inline import INLINE, inline
from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.capture.pulls import leads_to
from vqdoctor.capture.tables import are_rows
from vqdoctor.capture.watch import Watch, watch_each
from vqdoctor.core.errors import UserError

if TYPE_CHECKING:
    from vqdoctor.capture.run import Capture

INDICES_ONLY = "the layer gives indices alone, and no z_q"
METHODS_ONLY = (
    "this implementation quantizes in its encode and decode methods, which pass no gradient: it has no "
    "training path to judge"
)
IN_EVAL = "the layer is in eval mode while the model trains, and passes no gradient there"
FROZEN = "the layer and all before it are frozen and run under no_grad"
NOT_CALLED = "the model never calls the layer in train mode"
_PROJECTIONS = (nn.Linear, nn.LayerNorm, nn.Identity, nn.Dropout)


def locate(capture: Capture, layers: Mapping[str, CapturedLayer]) -> dict[str, CapturedLayer]:
    """Return the layers with where they are, in the same order; one that was not found stays without.

    Looked at are the modules around each codebook, in train mode. Levels that a quantizer leaves out at
    random get a run with all levels. Layers that are still not found are looked for among all modules, by
    the modules' outputs.
    """
    found = dict(layers)
    places = capture.discovered.places
    paths = {
        name: (places[name],) if name in places else candidates(capture.model, layer.tensors["codebook"])
        for name, layer in layers.items()
    }
    batches = capture.first_batches
    for number, batch in enumerate((*batches, *batches[:1])):
        missing = {name: at for name, at in paths.items() if found[name].path is None}
        if not missing:
            break
        model = capture.copy(training=True)
        if number == len(batches):
            stop_dropping_levels(model, [path for at in paths.values() for path in at])
        modules = {path: model.get_submodule(path) for at in missing.values() for path in at}
        with watch_each(modules.values(), keep_graph=True) as watched:
            losses = capture.task.losses(model, batch)
        seen = {path: watched[module] for path, module in modules.items()}
        for name, at in missing.items():
            layer = judge(layers[name], model, at, seen, losses.vq)
            if layer is not None and (layer.maps or number >= len(batches) - 1):
                found[name] = layer
    found = {name: _with_shared(_by_output(capture, layer)) for name, layer in found.items()}
    return {**found, **inline(capture, found)}


def _with_shared(layer: CapturedLayer) -> CapturedLayer:
    """Return a layer with the paths of the layers that share its codebook: where they lie as it does."""
    if layer.path is None or not layer.maps or not layer.path.startswith(layer.name):
        return layer
    paths = [other + layer.path[len(layer.name) :] for other in layer.view.shared_with]
    known = {path for path, _ in layer.model.named_modules(remove_duplicate=False)} if paths else set()
    return replace(layer, shared_paths=tuple(path for path in paths if path in known))


def _by_output(capture: Capture, layer: CapturedLayer) -> CapturedLayer:
    """Return a layer of which no z_q is seen yet at the innermost module whose output consists of its codes.

    The layer is returned as it is where there is no such module.
    """
    if layer.maps or not capture.first_batches or not layer.reader.has_codebook:
        return layer
    codebook = torch.tensor(layer.view.codebook)  # a file's array is read-only
    for path, table in capture.tables.items():
        if table.shape[1] == layer.view.dim and are_rows(table, codebook):
            return replace(layer, path=path, lookup_path=None, gap="", maps=True)
    return layer


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
    for name, module in parent.named_modules():
        if not name or f"{name}.".startswith(f"{child}.") or next(module.parameters(False), None) is None:
            continue
        owner, found, _ = f".{name}".partition(".parametrizations.")
        if found and parametrize.is_parametrized(parent.get_submodule(owner.lstrip("."))):
            continue  # a parametrization (weight_norm) belongs to its owner, which is judged by its own class
        is_conv = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        if not (isinstance(module, _PROJECTIONS) or (is_conv and set(module.kernel_size) == {1})):
            return False
    return True


def judge(
    layer: CapturedLayer,
    model: nn.Module,
    paths: Sequence[str],
    watched: Mapping[str, Watch],
    vq_loss: torch.Tensor | None = None,
) -> CapturedLayer | None:
    """Return the layer at that candidate, innermost first, which is the VQ layer; None if none was used.

    It is the innermost module from a float input to a float output of its shape that passes a
    gradient; if no module does, the innermost one with the usual batch axis. Only the innermost's output
    may have another dimension.

    Args:
        layer: the layer, not located yet.
        model: the copy that ran.
        paths: the candidates.
        watched: their calls in train mode.
        vq_loss: the task's VQ loss of that pass, if it has one.
    """
    mapping: list[tuple[str, Call]] = []
    for path in paths:
        call = next(iter(watched[path].mapped), None)
        if call is not None and call.z_q is not None and (not mapping or call.z_q.shape == call.z_e.shape):
            mapping.append((path, call))
    if not mapping:
        giving = (path for path in paths if any(call.integers for call in watched[path].calls))
        if (at := next(giving, None)) is not None:
            return replace(layer, path=at, gap=INDICES_ONLY)
        at = next((path for path in paths if watched[path].fetched), None)
        return None if at is None else replace(layer, path=at, gap=INLINE)
    # the innermost is enough: around it the whole model may be a candidate, and a backward pass of it costs
    alive = next(((p, c) for p, c in mapping if not watched[p].by_method and passes_gradient(c)), None)
    # an inner module may have heads first: the batch axis is that of the outermost
    usual = (mapping[-1][1].z_e.ndim, mapping[-1][1].z_e.shape[0])
    path, call = alive or next((p, c) for p, c in mapping if (c.z_e.ndim, c.z_e.shape[0]) == usual)
    inward = paths[: paths.index(path) + 1]
    lookup = next((p for p in inward if layer.reader.lookups(watched[p])), None)
    gap = "" if alive is not None else _gap(model, path, call, watched[path], vq_loss)
    hides_codes = lookup is None and layer.reader.has_codebook and layer.reader.codes(call) is None
    found = replace(layer, path=path, lookup_path=lookup, gap=gap, maps=True, hides_codes=hides_codes)
    return replace(found, closed=alive is None and gap in ("", METHODS_ONLY))


def _gap(model: nn.Module, path: str, call: Call, watched: Watch, vq_loss: torch.Tensor | None) -> str:
    # A VQ loss that pulls at z_e shows a layer that is trained, whichever way the model uses it.
    if watched.by_method and not leads_to(vq_loss, call.z_e):
        return METHODS_ONLY
    if not call.training:
        return IN_EVAL
    parameters = list(model.named_parameters())  # of the layer, and of what the model holds before it
    inside = [i for i, (name, _) in enumerate(parameters) if name.startswith(f"{path}.")]
    until = parameters[: inside[-1] + 1] if inside else parameters
    return "" if call.recorded or any(p.requires_grad for _, p in until) else FROZEN


def stop_dropping_levels(model: nn.Module, paths: Sequence[str]) -> None:
    """Put the modules that hold several of the layers, but not the layers, in eval mode.

    In training a residual quantizer with quantizer dropout leaves out its deeper levels at random, so
    that some would never be seen.
    """
    for path in paths:
        while path := path.rpartition(".")[0]:
            if sum(other.startswith(f"{path}.") for other in paths) > 1:
                model.get_submodule(path).training = False


def passes_gradient(call: Call) -> bool:
    """Whether a gradient passes from a call's z_q to its z_e."""
    if call.z_q is None or not call.z_q.requires_grad or not call.z_e.requires_grad:
        return False
    sent = torch.randn(call.z_q.shape, generator=torch.Generator().manual_seed(0)).to(call.z_q)
    found = torch.autograd.grad(call.z_q, call.z_e, sent, retain_graph=True, allow_unused=True)
    g: torch.Tensor | None = found[0]
    return g is not None and bool(g.any())
