"""The start of a retraining: the checkpoint, one with a new encoder, a new model, or the one without VQ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from vqdoctor.capture import pulls
from vqdoctor.capture.layer import CapturedLayer, watching
from vqdoctor.core.errors import UserError
from vqdoctor.core.training_plan import Start
from vqdoctor.models.task import Batch, Task
from vqdoctor.models.untouched import seed_all


@torch.no_grad()
def restart(
    model: torch.nn.Module,
    task: Task,
    batch: Batch,
    layers: tuple[CapturedLayer, ...],
    start: Start,
    seed: int,
    learned: Mapping[str, torch.Tensor] | None = None,
) -> int:
    """Give the values of a freshly built model, or of the one without VQ, in place to all that starts anew.

    A new encoder is every parameter that z_e depends on, with the buffers of the modules that own one;
    the codebooks are not among them. A frozen part has its values from elsewhere, such as a pretrained
    backbone, and keeps them in a new model too.

    Args:
        model: the model with the checkpoint in it.
        task: its task, which builds the fresh one.
        batch: a train batch, which shows what z_e depends on.
        layers: its VQ layers.
        start: the start of the training plan.
        seed: seed of the fresh model.
        learned: the state of the same model after its training without VQ, for the start of that name.

    Returns:
        How many tensors were given new values.

    Raises:
        UserError: if the fresh model does not have the same tensors.
    """
    if start == "checkpoint":
        return 0
    own = dict(named_tensors(model))
    if start == "without-vq":
        assert learned is not None
        for name, tensor in own.items():
            tensor.copy_(learned[name])
        return len(own)
    seed_all(seed)
    fresh = task.model()
    if fresh is model:
        raise UserError("task.model() returns the model that is retrained", "build a new one at every call")
    values = dict(named_tensors(fresh))
    names = set(own) - frozen(model, layers) if start == "scratch" else leading_to(model, task, batch, layers)
    for name in names:
        if name not in values or values[name].shape != own[name].shape:
            raise UserError(
                f"a freshly built model has no {name} of this shape", "build the same model each time"
            )
        own[name].copy_(values[name])
    return len(names)


def require_finite(model: torch.nn.Module) -> None:
    """Raise a `UserError` if a parameter of a model that is to be trained holds NaN or infinity."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UserError(
                f"{name} holds NaN or infinity before the first step, so that no loss is finite",
                "retrain an earlier checkpoint, or build this part anew: `vqdoctor explain VQ901`",
            )


def named_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every parameter and buffer of a model by its name, those that no file has too."""
    yield from model.named_parameters()
    yield from model.named_buffers()


@torch.no_grad()
def leading_to(
    model: torch.nn.Module, task: Task, batch: Batch, layers: tuple[CapturedLayer, ...]
) -> set[str]:
    """Return the names of the parameters that z_e depends on, and of their modules' buffers."""
    stored = stored_ids(layers)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad and id(p) not in stored}
    buffers = dict(model.named_buffers())
    codebooks = {name: p for name, p in model.named_parameters() if id(p) in stored}
    before = {name: tensor.clone() for name, tensor in (*buffers.items(), *codebooks.items())}
    model.train()
    with torch.enable_grad(), watching(layers, keep_graph=True) as watched:
        task.losses(model, batch)
        z_e = [call.z_e for layer in layers for call in layer.calls(watched)[:1]]
        leading: set[str] = set().union(*(pulls.leading_to(z, named) for z in z_e))
    for name, tensor in (*model.named_buffers(), *model.named_parameters()):
        if name in before:  # a forward pass may have moved it by an EMA, or put another in its place
            tensor.copy_(before[name])
    owners = {name.rpartition(".")[0] for name in leading}
    return leading | {
        name for name, t in buffers.items() if id(t) not in stored and name.rpartition(".")[0] in owners
    }


def frozen(model: torch.nn.Module, layers: tuple[CapturedLayer, ...]) -> set[str]:
    """Return the names of the parameters without a gradient, and of the buffers of modules that own no other.

    The tensors of the VQ layers are not among them: an EMA writes these.
    """
    stored, found = stored_ids(layers), set()
    for path, module in model.named_modules():
        own = [*module.named_parameters(path, recurse=False)]
        still = [(name, p) for name, p in own if not p.requires_grad and id(p) not in stored]
        if own and len(still) == len(own):
            still += [(n, b) for n, b in module.named_buffers(path, recurse=False) if id(b) not in stored]
        found |= {name for name, _ in still}
    return found


def stored_ids(layers: tuple[CapturedLayer, ...]) -> set[int]:
    """Return the identities of the tensors that the VQ layers store."""
    tensors = (layer.stored(role) for layer in layers for role in layer.tensors)
    return {id(tensor) for tensor in tensors if tensor is not None}
