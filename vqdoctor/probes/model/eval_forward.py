"""The changes of an eval-mode forward pass to the model: there should be none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch

from vqdoctor.core.evidence import EvalForward, Evidence, Unavailable
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.probe import Missing, Probe

_NAMED = 16


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield the changes of one eval-mode pass to every VQ layer, and to the rest of the model."""
    if not context.first_batches:
        yield Missing("the task serves no batch").gap(EvalForward, None, "batch")
        return
    model = context.copy(training=False)
    with torch.no_grad():
        context.task.losses(model, context.first_batches[0])
    before, after = _tensors(context.model), _tensors(model)
    compared: dict[str | None, int] = defaultdict(int)
    changed: dict[str | None, list[str]] = defaultdict(list)
    for name, tensor in before.items():
        layer = _layer(context, name)
        compared[layer] += 1
        # NaN equals itself here: a value that was broken before has not changed
        same = name in after and tensor.shape == after[name].shape
        if not same or not torch.equal(tensor.nan_to_num(), after[name].to(tensor.device).nan_to_num()):
            changed[layer].append(name)
    codebooks = {layer.tensors.get("codebook") for layer in context.layers.values()}
    for layer in (*(view.name for view in context.views), None):
        names = changed[layer]
        yield EvalForward(
            layer=layer,
            source="batch",
            sample_size=compared[layer],
            changed=tuple(names[:_NAMED]),
            changed_count=len(names),
            codebook=not codebooks.isdisjoint(names),
        )


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _layer(context: ModelContext, tensor: str) -> str | None:
    """Return the VQ layer whose module, or whose codebook's module, holds the tensor."""
    for name, layer in context.layers.items():
        codebook = layer.tensors.get("codebook", "")
        homes = {codebook.rpartition(".")[0], layer.path if layer.maps else None} - {"", None}
        if tensor == codebook or any(tensor.startswith(f"{home}.") for home in homes):
            return name
    return None


PROBE = Probe(kinds=(EvalForward,), measure=measure, mode="eval")
