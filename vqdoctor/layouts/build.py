"""From the tensors of one VQ layer to its views: one a head, all [K, D], read when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.errors import UserError
from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.layout import Ema, Orientation
from vqdoctor.layouts.place import Place
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import Array, Lookup, QuantizerView, Tensor

AnyArray = NDArray[np.generic]
MOST_HEADS = 4096
"""Codebooks of one tensor: each is a view, and all are counted again before they are judged."""


@frozen
class Fit:
    """How a codebook's shape and its counts' shape fit together.

    Attributes:
        transposed: whether the codebook is stored as [D, K].
        ambiguous: whether the other orientation would fit as well.
        num_codes: K, without a padding row.
    """

    transposed: bool
    ambiguous: bool
    num_codes: int


def is_float(tensor: Tensor) -> bool:
    """Whether the tensor holds floating-point numbers of any width."""
    return tensor.dtype.startswith(("float", "bfloat"))


def is_matrix(tensor: Tensor | None) -> bool:
    """Whether the tensor can be a codebook: float, [K, D] with at least two codes."""
    return tensor is not None and is_float(tensor) and len(tensor.shape) == 2 and min(tensor.shape) > 0


def is_stack(tensor: Tensor | None) -> bool:
    """Whether the tensor can be several codebooks of one shape: float, [G, K, D] with two groups or more."""
    if tensor is None or not is_float(tensor) or len(tensor.shape) != 3:
        return False
    groups, codes, dim = tensor.shape
    return 2 <= groups <= MOST_HEADS and codes > 1 and dim > 0


def holds(tensor: Tensor | None, shape: tuple[int, ...]) -> bool:
    """Whether there is such a tensor and it has that shape."""
    return tensor is not None and tensor.shape == shape


def fit(
    codebook: tuple[int, ...], counts: tuple[int, ...], orientation: Orientation | None = None
) -> Fit | None:
    """Say how a codebook of that shape belongs to counts of that shape; None if it does not.

    Fits are [K, D] with [K], [H, K, D] with [H, K], the transposed [D, K] with [K], and [K + 1, D] with
    [K], whose last row is a padding row. `orientation` decides where two fit; without it [K, D] is taken.
    """
    if not 2 <= len(codebook) <= 3 or min(codebook, default=0) < 1 or not counts:
        return None
    kd, dk = codebook[:-1] == counts, len(codebook) == 2 and codebook[1:] == counts
    if kd or dk:
        transposed = dk and (not kd or orientation == "dk")
        return Fit(transposed=transposed, ambiguous=kd and dk, num_codes=counts[-1])
    if len(codebook) == 2 and codebook[0] - 1 == counts[0] and len(counts) == 1:
        return Fit(transposed=False, ambiguous=False, num_codes=counts[0])
    return None


def build(
    state: StateDict,
    *,
    name: str,
    roles: Mapping[str, str],
    confidence: Confidence = Confidence.HIGH,
    ema: Ema | None = None,
    transposed: bool = False,
    num_codes: int | None = None,
    lookup: Lookup | None = None,
    places: Sequence[Place] | None = None,
) -> Iterator[QuantizerView]:
    """Yield the views of one layer: one, or one for each of its codebooks.

    Args:
        state: the state dict that holds it.
        name: path of the layer; "" (the root) becomes "vq".
        roles: role to clean name; needs "codebook", may have "counts", "sums" and "initted".
        confidence: how sure the recognition is.
        ema: the library's constants.
        transposed: whether codebook and sums are stored as [D, K].
        num_codes: K, where further rows are padding or another codebook's.
        lookup: how codes are chosen, where the layout tells.
        places: where each codebook lies; None is one for each head of [H, K, D].
    """
    tensors = {role: state.entries[key] for role, key in roles.items()}
    shape = tensors["codebook"].shape
    rows, dim = shape[-2:][::-1] if transposed else shape[-2:]
    rows = num_codes or rows
    ema = ema or Ema()
    if places is None:
        heads = range(shape[0]) if len(shape) == 3 else [None]
        padded = rows if rows != (shape[-1] if transposed else shape[-2]) else None
        if len(heads) > MOST_HEADS:
            what = f"{roles['codebook']}: {len(heads):,} codebooks in one tensor, more than any model has"
            raise UserError(what, "name the key of the codebook: --codebook-key KEY")
        places = [Place(head=head, transposed=transposed, rows=padded) for head in heads]
    for number, place in enumerate(places):
        yield QuantizerView(
            name=(name or "vq") + (f"[head {number}]" if len(places) > 1 else ""),
            confidence=confidence,
            num_codes=rows,
            dim=dim,
            keys={role: state.raw[key] for role, key in roles.items()},
            **vars(ema),
            lookup=lookup,
            initted=_flag(tensors.get("initted")),
            place=place,
            load_codebook=partial(_load, tensors["codebook"], place.codes),
            load_counts=partial(_load, tensors["counts"], place.counts) if "counts" in tensors else None,
            load_sums=partial(_load, tensors["sums"], place.codes) if "sums" in tensors else None,
        )


def _load(tensor: Tensor, rows_of: Callable[[AnyArray], AnyArray]) -> Array:
    return np.ascontiguousarray(rows_of(tensor.read()), dtype=np.float32)


def _flag(tensor: Tensor | None) -> bool | None:
    """Read a stored flag: a bool of shape (), or in older releases a float of shape [1]."""
    if tensor is None or int(np.prod(tensor.shape)) != 1:
        return None
    return bool(tensor.read().reshape(()))
