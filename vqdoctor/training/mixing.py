"""Training batches of a fixed order, whose samples are drawn anew for every pass.

A batch that meets the same samples in every epoch gives the same gradient again, and a sorted data set one
kind after the other. Batches in memory can be mixed here, whatever the user's loader does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from vqdoctor.capture.call import FAILURES
from vqdoctor.core.errors import UserError
from vqdoctor.models.task import Batch, Task
from vqdoctor.models.tensors import mapped, places, samples_of, tensors_of
from vqdoctor.models.untouched import in_eval_mode, same_randomness, unwrapped_name, working_copy

WINDOW = 1 << 28
"""Bytes of batches that are held, and mixed, at a time."""
FOLLOWING = (_BatchNorm, _DropoutNd)
"""Modules that depend on the whole batch, or draw, in train mode."""
SAME = 1e-4
"""Largest difference of the task loss from that of its parts, as a share of it: as float32 sums differ."""


def redrawn(batches: Iterable[Batch], generator: torch.Generator) -> Iterator[Batch]:
    """Yield as many batches of the same sizes, whose samples are drawn from all that are held at a time.

    Batches whose samples do not fit into one batch only change places: sequences of many lengths, batches
    with other values beside their tensors.

    Args:
        batches: the batches of a pass.
        generator: of the order.
    """
    held: list[Batch] = []
    size = 0
    for batch in batches:
        held.append(mapped(batch, torch.Tensor.clone))  # a loader may fill one buffer again and again
        size += sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(batch))
        if size >= WINDOW:
            yield from _redrawn(held, generator)
            held, size = [], 0
    yield from _redrawn(held, generator)


def _redrawn(batches: Sequence[Batch], generator: torch.Generator) -> Iterator[Batch]:
    if not (all(map(_is_plain, batches)) and len({tuple(places(b, _form)) for b in batches}) <= 1):
        yield from (batches[at] for at in torch.randperm(len(batches), generator=generator).tolist())
        return
    sizes = [samples_of(batch) or 0 for batch in batches]
    columns = [torch.cat(column) for column in zip(*map(tensors_of, batches), strict=True)]
    order = torch.randperm(sum(sizes), generator=generator)
    at = 0
    for batch, count in zip(batches, sizes, strict=True):
        rows, at = order[at : at + count], at + count
        drawn = iter([column[rows.to(column.device)] for column in columns])
        yield mapped(batch, partial(_next, drawn))


def _is_plain(batch: Batch) -> bool:
    """Whether each tensor of a batch is a plain one, with its samples along its first axis."""
    tensors = [*tensors_of(batch)]
    plain = all(t.layout is torch.strided and not t.is_nested and t.ndim for t in tensors)
    return plain and samples_of(batch) is not None


def _form(tensor: torch.Tensor) -> object:
    return tensor.dtype, tensor.device, tensor.ndim, tensor.shape[1:]


def _next(tensors: Iterator[torch.Tensor], _: torch.Tensor) -> torch.Tensor:
    return next(tensors)


@torch.no_grad()
def is_of_samples(
    model: torch.nn.Module, task: Task, batch: Batch, held: Collection[torch.nn.Module] = ()
) -> bool:
    """Whether the first axis of a batch is that of its samples: its loss is made up of its parts' losses.

    The loss of the whole must be the mean of those of two parts drawn at random, or their sum. The first axis
    may be time, or the points of a set, or hold pairs: then it is neither. A model that answers everything
    alike passes in any case, so that a freshly built one should be asked too. A model may hold pairs in its
    train mode only, where it draws nothing.

    Args:
        model: the model, whose tensors are left as they are.
        task: its task.
        batch: a batch.
        held: modules that stay in eval mode, such as VQ layers that follow the batch in train mode.
    """
    if not _is_plain(batch) or (samples := samples_of(batch) or 0) < 2:
        return False
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(0))
    first = max(1, samples // 3)
    parts = [batch, *(mapped(batch, partial(_rows, rows)) for rows in (order[:first], order[first:]))]

    def adds_up() -> bool:
        found = [_loss(model, task, part) for part in parts]
        if None in found:  # sequences in descending order of their lengths, for one
            return False
        whole, one, other = (loss or 0.0 for loss in found)
        mean = (first * one + (samples - first) * other) / samples
        return any(_are_same(whole, sum_) for sum_ in (mean, one + other))

    with in_eval_mode(model):
        if not adds_up():
            return False
        _train_own(model, held)
        drawn = [_loss(model, task, batch, seed) for seed in (0, 1)]
        return drawn[0] != drawn[1] or adds_up()


@torch.no_grad()
def is_in_order(
    model: torch.nn.Module, task: Task, batches: Sequence[Batch], held: Collection[torch.nn.Module] = ()
) -> bool:
    """Whether the loss of a batch depends on the batch before it, as where a state is carried along.

    The second batch is run after the first one, and twice after itself: a loss that differs then is drawn.

    Args:
        model: the model, whose tensors are left as they are.
        task: its task.
        batches: two batches that come one after the other; with fewer there is no order.
        held: modules that stay in eval mode.
    """
    if len(batches) < 2:
        return False
    first, second = batches[:2]
    for trains in (False, True):
        found = []
        for before in (first, second, second):
            its = _twin(model, task, held)  # whatever a pass leaves behind is in a copy of its own
            with in_eval_mode(its[0]):
                if trains:
                    _train_own(*its)
                _loss(its[0], task, before, kept=its[1])
                found.append(_loss(its[0], task, second, kept=its[1]))
        after_first, *after_itself = found
        known = None not in found and _are_same(*after_itself)
        if known and not _are_same(after_first, after_itself[0]):
            return True
    return False


def _twin(
    model: torch.nn.Module, task: Task, held: Collection[torch.nn.Module]
) -> tuple[torch.nn.Module, list[torch.nn.Module]]:
    """Return a copy of a model, and those of its modules that stay in eval mode."""
    those = {*map(id, held)}
    names = [unwrapped_name(model, name) for name, module in model.named_modules() if id(module) in those]
    twin = working_copy(model, training=False, rebuild=task.model)
    return twin, [twin.get_submodule(name) for name in names]


def _train_own(model: torch.nn.Module, held: Collection[torch.nn.Module]) -> None:
    """Set the user's own modules to train mode: norms, dropout and held modules keep theirs."""
    kept = {inner for module in held for inner in module.modules()}
    for module in model.modules():
        theirs = type(module).__module__.startswith("torch.nn.") or isinstance(module, FOLLOWING)
        if module not in kept and not theirs:
            module.training = True


def _loss(
    model: torch.nn.Module,
    task: Task,
    batch: Batch,
    seed: int = 0,
    kept: Iterable[torch.nn.Module] | None = None,
) -> float | None:
    """Return the task loss of a batch; None where the task fails.

    Args:
        model: the model.
        task: its task.
        batch: the batch.
        seed: of all that is drawn.
        kept: modules whose tensors are as before afterwards; None is all.
    """
    modules = {inner for module in ((model,) if kept is None else kept) for inner in module.modules()}
    before = [(m, dict(m._buffers)) for m in modules]
    named = (t for m in modules for t in (*m._parameters.values(), *m._buffers.values()))
    tensors = {id(t): t for t in named if t is not None and not is_lazy(t)}
    values = [(t, t.detach().clone()) for t in tensors.values()]
    try:
        with same_randomness(seed):
            return float(task.losses(model, batch).task)
    except (*FAILURES, UserError):
        return None
    finally:
        for module, buffers in before:
            module._buffers.update(buffers)
        for tensor, value in values:  # a layer may train in eval mode too
            if tensor.shape == value.shape:
                tensor.data.copy_(value)
            else:
                tensor.data = value


def _are_same(one: float | None, other: float | None) -> bool:
    one, other = one or 0.0, other or 0.0
    return abs(one - other) <= SAME * abs(one)


def _rows(rows: slice | torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    return tensor[rows if isinstance(rows, slice) else rows.to(tensor.device)]
