"""The changes of an eval-mode forward pass to the model: there should be none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch

from vqdoctor.core.evidence import EvalForward, Evidence, Unavailable
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.probe import Missing, Probe

_NAMED = 16


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield the changes of one eval-mode pass to every VQ layer, and to the rest of the model.

    Where a codebook is among them, a second pass over the same batch shows whether it goes on.
    """
    if not context.first_batches:
        yield Missing("the task serves no batch").gap(EvalForward, None, "batch")
        return
    model = context.copy(training=False)
    _evaluate(context, model)
    before, after = _tensors(context.model), _tensors(model)
    changed = _changed(before, after)
    codebooks = {layer.tensors.get("codebook") for layer in context.layers.values()}
    again: set[str] = set()
    if not codebooks.isdisjoint(changed):
        after = {name: tensor.detach().clone() for name, tensor in after.items()}
        _evaluate(context, model)
        again = _changed(after, _tensors(model))
    compared: dict[str | None, list[str]] = defaultdict(list)
    for name in before:
        compared[_layer(context, name)].append(name)
    for layer in (*(view.name for view in context.views), None):
        names = [name for name in compared[layer] if name in changed]
        codebook = codebooks.intersection(names)
        yield EvalForward(
            layer=layer,
            source="batch",
            sample_size=len(compared[layer]),
            changed=tuple(names[:_NAMED]),
            changed_count=len(names),
            codebook=bool(codebook),
            again=not again.isdisjoint(codebook) if codebook else None,
        )


def _evaluate(context: ModelContext, model: torch.nn.Module) -> None:
    with torch.no_grad():
        context.task.losses(model, context.first_batches[0])


def _changed(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> set[str]:
    """Return the names of the tensors that are no longer as they were."""
    changed = set()
    for name, tensor in before.items():
        # NaN equals itself here: a value that was broken before has not changed
        same = name in after and tensor.shape == after[name].shape
        if not same or not torch.equal(tensor.nan_to_num(), after[name].to(tensor.device).nan_to_num()):
            changed.add(name)
    return changed


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
