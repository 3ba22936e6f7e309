"""The views of a layer whose codes a model holds under a name of no meaning."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from vqdoctor.capture.tables import Held
from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.place import Place
from vqdoctor.layouts.view import Array, Lookup, QuantizerView
from vqdoctor.models.untouched import working_copy


def stored(
    name: str,
    model: nn.Module,
    run: Callable[[nn.Module], object],
    held: Held,
    layout: str,
    lookup: Lookup | None = None,
) -> list[QuantizerView]:
    """Return the view of a layer, or one for each of its heads.

    Args:
        name: the layer's name.
        model: the model.
        run: runs a model on a batch.
        held: the tensor that holds its codes.
        layout: how it was found.
        lookup: how its codes are chosen, where that was seen.
    """
    saved = model.state_dict()
    codes = saved[held.name]
    counts = _never_counted(model, run, held, codes)
    heads = range(held.heads) if held.heads else (None,)
    keys = {"codebook": held.name} | ({} if counts is None else {"counts": counts})
    views = []
    for head in heads:
        place = Place(head=head, head_axis=held.head_axis, transposed=held.transposed)
        num_codes, dim = place.codes(codes).shape
        views.append(
            QuantizerView(
                name=name if head is None else f"{name}[head {head}]",
                layout=layout,
                confidence=Confidence.MEDIUM,
                num_codes=num_codes,
                dim=dim,
                keys=keys,
                lookup=lookup,
                place=place,
                load_codebook=partial(_rows, codes, place.codes),
                load_counts=None if counts is None else partial(_rows, saved[counts], place.counts),
            )
        )
    return views


def tied(views: Sequence[QuantizerView], model: nn.Module) -> tuple[QuantizerView, ...]:
    """Return one view for the layers whose codes are one tensor: the first, which names the others."""
    saved = model.state_dict()
    shared: dict[Hashable, list[QuantizerView]] = {}
    for view in views:
        shared.setdefault((saved[view.keys["codebook"]].data_ptr(), view.place.head), []).append(view)
    return tuple(
        replace(first, shared_with=tuple(view.name for view in others)) for first, *others in shared.values()
    )


def _never_counted(
    model: nn.Module, run: Callable[[nn.Module], object], held: Held, codes: torch.Tensor
) -> str | None:
    """Return the name of the buffer beside the codes that holds a count of one for each; None if none does.

    A training pass writes it: a mask of ones stays. Counts that were written have no form of their own: they
    may as well be ages or shares of the usage.
    """
    owner = held.name.rpartition(".")[0]
    shape = codes.transpose(-1, -2).shape[:-1] if held.transposed else codes.shape[:-1]
    saved = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        beside = name.rpartition(".")[0] == owner and name in saved
        if beside and buffer.is_floating_point() and buffer.shape == shape and bool((buffer == 1).all()):
            twin = working_copy(model, training=True)
            with torch.no_grad():
                run(twin)
            return name if not torch.equal(twin.get_buffer(name), buffer) else None
    return None


def _rows(tensor: torch.Tensor, rows_of: Callable[[Array], Array]) -> Array:
    return np.ascontiguousarray(rows_of(tensor.detach().float().cpu().numpy()), dtype=np.float32)
