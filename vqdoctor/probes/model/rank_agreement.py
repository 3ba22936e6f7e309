"""The codebooks of the launcher's processes after the same few steps, each with batches of its own.

Each process trains as the user's own does: the model is built while torch's default process group is there,
all begin with rank zero's values, and each runs its own batches forward. A layer that adds up what the
processes saw has one codebook then. No buffer is broadcast: DistributedDataParallel would hide that they
differ, and lose what the others saw.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import distributed

from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.core.evidence import RankAgreement
from vqdoctor.metrics.geometry import Rows
from vqdoctor.models.device import moved
from vqdoctor.models.process_group import default_group
from vqdoctor.models.task import Batch
from vqdoctor.models.untouched import seed_all, unwrapped
from vqdoctor.probes._agreement import Apart
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.probe import Missing

STEPS = 16
"""Batches of each process, forward alone: the first may initialise a codebook, the next move it, and
the count of a code that nothing chooses falls to a fifth at a decay of 0.9, so that it is revived."""


def measure(context: ModelContext) -> dict[str, RankAgreement]:
    """Return how the codebooks of the processes agree, of the checkpoint and of a model that is built anew.

    Raises:
        Missing: if this is a single process, or the processes cannot be compared.
    """
    size = context.launched.size
    if size == 1:
        raise Missing("a single process", "torchrun --nproc-per-node 2 -m vqdoctor inspect … compares two")
    batches = list(itertools.islice(context.task.batches("train"), STEPS * size))
    rounds = len(batches) // size
    if not rounds:
        raise Missing(f"the task serves fewer than {size} train batches")
    own = batches[context.launched.rank :: size][:rounds]
    with default_group(context.launched) as gpu:
        device = gpu if gpu is not None and context.device.type == "cuda" else context.device
        own = [moved(batch, device) for batch in own]
        found = [one for trained in (False, True) for one in _each(context, own, device, trained=trained)]
    agreement = {}
    for name in dict.fromkeys(name for name, _ in found):
        others = [apart for known, several in found if known == name for apart in several]
        differing = [any(a.codes for a in pair) for pair in _pairs(others, size - 1)]
        agreement[name] = RankAgreement(
            source="batch",
            sample_size=context.layers[name].num_codes,
            others=size - 1,
            differing=sum(differing),
            worst=max(apart.typical for apart in others),
            codes=max(apart.codes for apart in others),
        )
    return agreement


def _pairs(others: list[Apart], processes: int) -> Iterator[list[Apart]]:
    """Yield, for each other process, how it differs after each training."""
    for process in range(processes):
        yield others[process::processes]


def _each(
    context: ModelContext, batches: list[Batch], device: torch.device, *, trained: bool
) -> Iterator[tuple[str, list[Apart]]]:
    """Train a model that is built anew, and yield each layer with how it differs from the other processes'.

    Args:
        context: the model and its task.
        batches: this process's.
        device: where they are.
        trained: whether the model gets the checkpoint's values.
    """
    seed_all(context.seed)
    model = unwrapped(context.task.model()).to(device).train()
    if trained:
        model.load_state_dict(context.model.state_dict(), strict=False)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            distributed.broadcast(tensor, 0)
    seed_all(context.seed)
    for batch in batches:
        context.task.losses(model, batch)
    for name, layer in context.layers.items():
        if layer.tensors.get("codebook") and layer.view.writable:
            own, *others = _codebooks(layer.on(model))
            yield name, [Apart.of(own, other) for other in others]


def _codebooks(layer: CapturedLayer) -> list[Rows]:
    """Return the codes of all processes, this one's first; codes that are not finite as zeros."""
    codes = layer.codes().cpu().contiguous()  # gloo gathers nothing on a GPU
    every = [torch.empty_like(codes) for _ in range(distributed.get_world_size())]
    distributed.all_gather(every, codes)
    rank = distributed.get_rank()
    ordered = [every[rank], *every[:rank], *every[rank + 1 :]]
    return [np.nan_to_num(one.numpy(), posinf=0.0, neginf=0.0) for one in ordered]


PROBE = each_layer(RankAgreement, measure, "no codebook of its own could be compared", by_gradient=False)
