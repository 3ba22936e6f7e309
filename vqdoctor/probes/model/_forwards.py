"""The codebook before and after each of a few train-mode forward passes, without any optimizer step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.layouts.live_rows import chosen_lately
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes.model._context import ModelContext

PASSES = 4
FAR = 0.5
"""A code has moved far when it travels over half the distance of a typical code from their mean."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What one forward pass did to one layer's codebook.

    Attributes:
        number: which pass, from 0.
        travelled: how far each row moved, over `scale`, float64 [rows].
        in_use: which rows are codes in use, bool [rows].
        vectors: vectors that were quantized.
        counts_moved: whether the EMA counts changed; None without counts.
    """

    number: int
    travelled: NDArray[np.float64]
    in_use: NDArray[np.bool_]
    vectors: int
    counts_moved: bool | None


def passes(context: ModelContext) -> Iterator[tuple[QuantizerView, Pass]]:
    """Yield, for a few training batches, what each forward pass did to each layer."""
    views = {view.name: view for view in context.views}
    before = {name: _state(context.model, context.codebook_names[name], view) for name, view in views.items()}
    for number, steps in enumerate(context.steps(PASSES)):
        for name, step in steps.items():
            view = views[name]
            after = _state(step.model, context.codebook_names[name], view)
            yield view, _compare(number, view, before[name], after, step.vectors)
            before[name] = after


_State = tuple[NDArray[np.float64], NDArray[np.float64] | None]


def tensor_of(model: torch.nn.Module, name: str) -> torch.Tensor:
    """Return the parameter or buffer of that name."""
    path, _, attribute = name.rpartition(".")
    tensor = getattr(model.get_submodule(path), attribute)
    assert isinstance(tensor, torch.Tensor)
    return tensor


def _state(model: torch.nn.Module, name: str, view: QuantizerView) -> _State:
    """Return the codebook's rows and the counts, all heads together, as the model holds them now."""
    stored = tensor_of(model, name).detach().double().cpu().numpy()
    if stored.shape == (view.dim, view.num_codes):
        stored = stored.T
    counts = view.keys.get("counts")
    path, _, codebook = view.keys["codebook"].rpartition(".")
    if counts is None or counts.rpartition(".")[0] != path or not name.endswith(codebook):
        return stored.reshape(-1, stored.shape[-1]).copy(), None
    sibling = name[: len(name) - len(codebook)] + counts.rpartition(".")[2]
    found = tensor_of(model, sibling).detach().double().cpu().numpy()
    return stored.reshape(-1, stored.shape[-1]).copy(), found.reshape(-1).copy()


def _compare(number: int, view: QuantizerView, before: _State, after: _State, vectors: int) -> Pass:
    rows, counts = before
    lately = None if counts is None else chosen_lately(counts.astype(np.float32))
    fits = lately is not None and len(lately) == len(rows) and lately.any()
    in_use = lately if fits and lately is not None else np.ones(len(rows), dtype=bool)
    live = rows[in_use]
    scale = float(np.median(np.linalg.norm(live - live.mean(axis=0), axis=1)))
    scale = scale or float(np.sqrt(np.mean(rows**2) * rows.shape[1])) or 1.0
    return Pass(
        number=number,
        travelled=np.linalg.norm(after[0] - rows, axis=1) / scale,
        in_use=in_use,
        vectors=vectors,
        counts_moved=None if counts is None or after[1] is None else not np.array_equal(counts, after[1]),
    )
