"""Layers without a module: the model itself chooses codes of a table and looks them up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from vqdoctor.capture.call import Call
from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.capture.pulls import leads_to
from vqdoctor.capture.watch import watch_each
from vqdoctor.layouts.place import Place
from vqdoctor.models.lookups import stand_in_of
from vqdoctor.models.origins import origins
from vqdoctor.models.task import Losses

if TYPE_CHECKING:
    from vqdoctor.capture.run import Capture

INLINE = "the model looks its codes up itself, outside a VQ layer: no module shows z_e and z_q"


def inline(capture: Capture, located: Mapping[str, CapturedLayer]) -> dict[str, CapturedLayer]:
    """Return the layers whose codes the model looks up itself, each at a stand-in that shows z_e and z_q.

    Looked at are the tables that no module was found for or whose module shows no codes, as one that maps its
    vectors on the way in and out; and several tables of one module, which shows the codes of none of them.
    Where a table's module passes no gradient, the model may hold the estimator, around that module. One whose
    output the task does not depend on is the module's own, which cuts it off.

    Args:
        capture: the model and its task.
        located: the layers with where they are, as far as a module shows it.
    """
    plain = [layer for layer in located.values() if _is_plain(layer)] if capture.first_batches else []
    wanted = [layer for layer in plain if _is_wanted(layer, located)]
    found = {}
    around = [replace(layer, around=True) for layer in plain if layer.closed and layer not in wanted]
    calls, losses = _shown(capture, wanted) if wanted else ({}, None)
    for layer in wanted:
        shown = calls[layer.name]
        is_around = losses is not None and bool(shown) and _is_around(losses.task, shown[0])
        judged = bool(layer.path) and layer.hides_codes and not layer.gap  # its module shows the gradient
        if shown and not (is_around and judged):
            found[layer.name] = _at_stand_in(layer, gap=INLINE if is_around else "")
            around += [replace(layer, around=True)] * is_around
    unseen = [layer for layer in wanted if not calls[layer.name] and layer.view.lookup is None]
    found.update(_by_logits(capture, unseen) if unseen else {})
    if around:
        calls, losses = _shown(capture, around)
        used = {name for name, made in calls.items() if any(leads_to(losses.task, call.z_q) for call in made)}
        found.update({layer.name: _at_stand_in(layer) for layer in around if layer.name in used})
    return found


def _shown(capture: Capture, layers: list[CapturedLayer]) -> tuple[dict[str, list[Call]], Losses]:
    """Return the calls of the layers' stand-ins on the first batch, in train mode, and the losses."""
    model = capture.copy(training=True)
    modules = {layer.name: model.get_submodule(layer.stand_in(model)) for layer in layers}
    with watch_each(modules.values(), keep_graph=True) as watched:
        losses = capture.task.losses(model, capture.first_batches[0])
    return {name: watched[module].mapped for name, module in modules.items()}, losses


def _by_logits(capture: Capture, layers: list[CapturedLayer]) -> dict[str, CapturedLayer]:
    """Return the layers whose codes logits choose, as in a discrete VAE, each at a stand-in that gets these.

    The gradient of the codes has to reach the logits: an embedding of a predicted class gives none.
    """
    chosen = []
    for layer in layers:
        view = replace(layer.view, lookup="logits")
        chosen.append(replace(layer, view=view, reader=replace(layer.reader, view=view)))
    calls, _ = _shown(capture, chosen)
    trained = {name for name, made in calls.items() if any(leads_to(call.z_q, call.z_e) for call in made)}
    return {layer.name: _at_stand_in(layer) for layer in chosen if layer.name in trained}


def _at_stand_in(layer: CapturedLayer, gap: str = "") -> CapturedLayer:
    path = stand_in_of(layer.tensors["codebook"])
    return replace(layer, path=path, lookup_path=None, gap=gap, maps=True, hides_codes=False, inline=True)


def _is_plain(layer: CapturedLayer) -> bool:
    """Whether a layer is a plain table, [K, D] or [D, K]."""
    known = "codebook" in layer.tensors and not layer.view.derived
    return known and replace(layer.view.place, rows=None, transposed=False) == Place()


def _is_wanted(layer: CapturedLayer, located: Mapping[str, CapturedLayer]) -> bool:
    """Whether no module of its own shows a plain table at work."""
    key = layer.tensors["codebook"]
    in_one = (other.tensors.get("codebook") for other in located.values() if other.path == layer.path)
    if not layer.path or layer.gap == INLINE or layer.hides_codes:
        return True
    return any(other not in (None, key) for other in in_one)


def _is_around(loss: torch.Tensor, call: Call) -> bool:
    """Whether the model's estimator passes over vectors and codes in a form that the lookup does not show.

    It may turn the codes into a feature map first, and write `z + (q - z).detach()` on that.
    """
    seen = [call.z_q, call.z_e]
    before = [t for t in origins(call.z_e)[1:] if t.requires_grad]
    if not loss.requires_grad or not before:
        return False
    asked = [t for t in seen if t is not None and t.requires_grad] + before
    grads = torch.autograd.grad(loss, asked, retain_graph=True, allow_unused=True)
    found: tuple[torch.Tensor | None, ...] = grads
    reached = [grad is not None and bool(grad.any()) for grad in found]
    return not any(reached[: -len(before)]) and any(reached[-len(before) :])
