"""Placing the codebooks where the data is, before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from vqdoctor.capture.layer import CapturedLayer, passes
from vqdoctor.models.task import Batch, Task
from vqdoctor.models.untouched import in_eval_mode
from vqdoctor.vq.kmeans import codes_from_data

VECTORS_PER_CODE = 64
"""Vectors that k-means gets for each code, where the data has as many."""
NOT_STORED = "its codes are computed from other tensors, or are combinations of levels"
UNSEEN = "its vectors cannot be seen in the codebook's dimension"


def place_codes(
    model: torch.nn.Module,
    task: Task,
    batches: Callable[[], Iterable[Batch]],
    layers: tuple[CapturedLayer, ...],
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    say: Callable[[str], None],
    gather: Callable[[torch.Tensor], torch.Tensor] = lambda vectors: vectors,
) -> dict[str, str]:
    """Place every codebook by k-means on z_e, one after another.

    So a residual level sees what the levels before it leave. The EMA counts become what an average batch
    would give, and the sums follow.

    Args:
        model: the model.
        task: its task.
        batches: serves the train batches anew.
        layers: its layers.
        optimizer: its optimizer, whose moments of the codes are cleared.
        generator: the source of randomness.
        say: told what is being done.
        gather: adds the vectors of other processes to those of a batch.

    Returns:
        The layers that were not placed, each with the reason.
    """
    left = {}
    for layer in layers:
        if not layer.view.writable:
            left[layer.name] = NOT_STORED
            continue
        say(f"k-means for {layer.name}")
        found = _vectors(model, task, batches(), layer, gather)
        if found is None:
            left[layer.name] = UNSEEN
            continue
        vectors, per_batch = found
        codes, counts = codes_from_data(vectors, layer.num_codes, generator=generator)
        rows = torch.arange(layer.num_codes)
        layer.write(rows, codes, counts * (per_batch / float(counts.sum())), optimizer)
    return left


def _vectors(
    model: torch.nn.Module,
    task: Task,
    batches: Iterable[Batch],
    layer: CapturedLayer,
    gather: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, float] | None:
    """Return finite vectors of the train split [N, D] and their number per batch; None if unseen."""
    found: list[torch.Tensor] = []
    enough = VECTORS_PER_CODE * layer.num_codes
    with in_eval_mode(model), torch.no_grad():
        for _, losses, watched in passes(model, task, batches, (layer,)):
            vectors = layer.vectors(watched)
            if vectors is None:
                return None
            vectors = gather(layer.only_data(vectors, watched, losses.mask))
            found.append(vectors[torch.isfinite(vectors).all(dim=1)])
            if sum(map(len, found)) >= enough:
                break
    vectors = torch.cat(found) if found else torch.empty(0, 1)
    return (vectors, len(vectors) / len(found)) if len(vectors) else None
