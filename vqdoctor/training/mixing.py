"""Training batches of a fixed order, whose samples are drawn anew for every pass.

A batch that meets the same samples in every epoch gives the same gradient again, and a sorted data set one
kind after the other. Batches in memory can be mixed here, whatever the user's loader does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch

from vqdoctor.models.task import Batch, Task
from vqdoctor.models.tensors import mapped, samples_of, tensors_of
from vqdoctor.models.untouched import in_eval_mode, same_randomness

WINDOW = 1 << 28
"""Bytes of batches that are held, and mixed, at a time."""
SAME = 1e-4
"""Largest change of the task loss, as a share of it, by another order: as much as float32 sums differ."""


def redrawn(batches: Iterable[Batch], generator: torch.Generator) -> Iterator[Batch]:
    """Yield as many batches of the same sizes, whose samples are drawn from all that are held at a time.

    Batches whose samples do not fit into one batch, as sequences of many lengths, only change places.

    Args:
        batches: the batches of a pass.
        generator: of the order.
    """
    held: list[Batch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += sum(tensor.nbytes for tensor in tensors_of(batch))
        if size >= WINDOW:
            yield from _redrawn(held, generator)
            held, size = [], 0
    yield from _redrawn(held, generator)


def _redrawn(batches: Sequence[Batch], generator: torch.Generator) -> Iterator[Batch]:
    sizes = [samples_of(batch) for batch in batches]
    forms = {tuple((t.dtype, t.device, t.ndim, t.shape[1:]) for t in tensors_of(batch)) for batch in batches}
    single = any(tensor.ndim == 0 for batch in batches for tensor in tensors_of(batch))
    if len(forms) > 1 or None in sizes or single:
        yield from (batches[at] for at in torch.randperm(len(batches), generator=generator).tolist())
        return
    known = [size for size in sizes if size is not None]
    columns = [torch.cat(column) for column in zip(*map(tensors_of, batches), strict=True)]
    order = torch.randperm(sum(known), generator=generator)
    at = 0
    for batch, count in zip(batches, known, strict=True):
        rows, at = order[at : at + count], at + count
        drawn = iter([column[rows.to(column.device)] for column in columns])
        yield mapped(batch, partial(_next, drawn))


def _next(tensors: Iterator[torch.Tensor], _: torch.Tensor) -> torch.Tensor:
    return next(tensors)


@torch.no_grad()
def is_of_samples(model: torch.nn.Module, task: Task, batch: Batch) -> bool:
    """Whether the first axis of a batch is that of its samples: in another order their task loss is the same.

    The first axis may be time, or a window of one recording, and then its places are not exchanged.
    """
    samples = samples_of(batch)
    if samples is None or samples < 2:
        return False
    losses = []
    state = {n: t.clone() for n, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    with in_eval_mode(model):
        for given in (batch, mapped(batch, lambda tensor: tensor.flip(0) if tensor.ndim else tensor)):
            with same_randomness(0):
                losses.append(float(task.losses(model, given).task))
            model.load_state_dict(state, strict=False)  # a layer may train in eval mode too
    return abs(losses[0] - losses[1]) <= SAME * abs(losses[0])
