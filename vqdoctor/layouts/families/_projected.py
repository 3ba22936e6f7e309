"""The search that SimVQ, OptVQ and VQGAN-LC share: a table behind a linear map, which is what is trained."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import is_float, is_matrix
from vqdoctor.layouts.siblings import layer_path
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import Array, Lookup, QuantizerView, Tensor


def projected(
    state: StateDict,
    path: str,
    *,
    layout: str,
    table: str,
    projection: str,
    confidence: Confidence,
    lookup: Lookup | None = None,
) -> Iterator[QuantizerView]:
    """Yield the view of the module at `path`, if it has a table [K, d] and a linear map [D, d] of its rows.

    The codebook is table · Wᵀ + b, [K, D]. The table itself is frozen, or may be.

    Args:
        state: the state dict.
        path: path of the module.
        layout: name of the layout.
        table: suffix of the table.
        projection: suffix of the linear module, which holds "weight" and perhaps "bias".
        confidence: how sure these names are.
        lookup: how codes are chosen, if known.
    """
    roles = {"codebook": join(path, table), "projection": join(path, f"{projection}.weight")}
    rows, weight = (state.entries.get(key) for key in roles.values())
    bias = state.get(path, f"{projection}.bias")
    if rows is None or weight is None or not (is_matrix(rows) and is_matrix(weight)):
        return
    if weight.shape[1] != rows.shape[1] or not (bias is None or _is_bias(bias, weight)):
        return
    if bias is not None:
        roles["projection_bias"] = join(path, f"{projection}.bias")
    yield QuantizerView(
        name=layer_path(path) or "vq",
        layout=layout,
        confidence=confidence,
        num_codes=rows.shape[0],
        dim=weight.shape[0],
        keys={role: state.raw[key] for role, key in roles.items()},
        lookup=lookup,
        frozen=True,
        derived=True,
        load_codebook=partial(_load, rows, weight, bias),
    )


def _is_bias(bias: Tensor, weight: Tensor) -> bool:
    return is_float(bias) and bias.shape == weight.shape[:1]


def _load(table: Tensor, weight: Tensor, bias: Tensor | None) -> Array:
    codes: Array = _floats(table) @ _floats(weight).T
    if bias is not None:
        codes += _floats(bias)
    return codes


def _floats(tensor: Tensor) -> Array:
    return np.asarray(tensor.read(), dtype=np.float32)
