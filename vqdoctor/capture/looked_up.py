"""Finding the tables whose codes a model chooses and looks up itself, outside any VQ layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from vqdoctor.capture.discover import ENOUGH, FEWEST, MOSTLY
from vqdoctor.capture.stored import stored
from vqdoctor.capture.tables import Held
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.models.lookups import Found, lookups_found

BY_LOOKUP = "found by its lookups"
"""Layout of a layer without a module: the model looks its codes up itself."""


def looked_up(model: nn.Module, run: Callable[[nn.Module], object]) -> tuple[QuantizerView, ...]:
    """Return the tables whose rows the model itself chooses for vectors, and looks up: matrices and stacks.

    The choice has to be that of the nearest row, or of the row with the largest product: an embedding is
    asked for the tokens of its input. A row of the largest logit counts where the model mixes the rows by a
    Gumbel-softmax of these in training.

    Args:
        model: a working copy; it is put in eval mode and run once.
        run: runs a model on a batch.
    """
    saved = model.state_dict().keys()  # a buffer that is not persistent is none of the file's tables
    tables = {
        name: tensor
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if tensor.ndim in (2, 3) and tensor.is_floating_point() and len(tensor) > 1 and name in saved
    }
    model.eval()
    with torch.no_grad(), lookups_found(tables, also="logits") as found:
        run(model)
    mixed: dict[str, Found] = {}
    if any(lookup.by_logits for lookup in found.values()):
        model.train()
        with torch.no_grad(), lookups_found(tables, also="mixtures") as mixed:
            run(model)
    views = []
    for name, lookup in found.items():
        held: Held | None = Held(name=name)
        if tables[name].ndim > 2:
            held = _in_stack(lookup, name, tables[name])
        elif lookup.by_logits:
            held = held if name in mixed and mixed[name].by_logits else None
        elif not _is_nearest(lookup, tables[name]):
            held = Held(name=name, transposed=True) if _is_nearest(lookup, tables[name].T) else None
        if held is not None:
            how: Literal["logits"] | None = "logits" if lookup.by_logits else None
            views += stored(name.removesuffix(".weight"), model, run, held, BY_LOOKUP, how)
    return tuple(views)


def _in_stack(lookup: Found, name: str, stack: torch.Tensor) -> Held | None:
    """Return the stack [H, K, D] or [K, H, D] if each code looked up is the nearest one of a head."""
    vectors, codes = (t.reshape(-1, stack.shape[-1])[:ENOUGH] for t in (lookup.z_e, lookup.z_q))
    for axis in (0, 1):
        heads = stack.detach().movedim(axis, 0)
        if min(heads.shape) < 2 or len(vectors) < FEWEST:
            continue
        nearest = [head[torch.cdist(vectors, head).argmin(1)] for head in heads]
        taken = torch.stack([(codes == own).all(dim=1) for own in nearest]).any(dim=0)
        if float(taken.float().mean()) > MOSTLY:
            return Held(name=name, heads=len(heads), head_axis=axis)
    return None


def _is_nearest(lookup: Found, table: torch.Tensor) -> bool:
    vectors, chosen = lookup.z_e.flatten(0, -2)[:ENOUGH], lookup.indices.flatten()[:ENOUGH]
    if len(vectors) < FEWEST or vectors.shape[1] != table.shape[1] or int(chosen.max()) >= len(table):
        return False
    # of vectors and codes far from 0, x² - 2xy + y² loses the digits that tell which code is the nearest
    centre = table.mean(dim=0)
    scores = (
        -torch.cdist(vectors - centre, table - centre),
        -torch.cdist(vectors, table),
        vectors @ table.T,
        vectors @ functional.normalize(table).T,
    )
    return any(float((score.argmax(1) == chosen).float().mean()) > MOSTLY for score in scores)
