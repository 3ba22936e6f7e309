"""Tables behind a linear map, which alone is trained (SimVQ, OptVQ, VQGAN-LC), declared by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import is_float, is_matrix
from vqdoctor.layouts.layout import Orientation
from vqdoctor.layouts.siblings import layer_path
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import Array, Lookup, QuantizerView, Tensor


@frozen
class Projected:
    """Finds every module with a table [K, d] and a linear map [D, d] of its rows.

    The codebook is table · Wᵀ + b, [K, D]. The table itself is usually frozen.

    Attributes:
        table: suffix of the table.
        projection: suffix of the linear module, which holds "weight" and perhaps "bias".
        confidence: how sure these names are.
        lookup: how codes are chosen, if known.
        fits: whether the module at that path is the layout's, as far as other tensors and its name show.
    """

    table: str
    projection: str
    confidence: Confidence = Confidence.HIGH
    lookup: Lookup | None = None
    fits: Callable[[StateDict, str], bool] = lambda _state, _path: True

    def __call__(self, state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
        """Yield one view for each module; none where the user says that codes are columns."""
        for path in state.owners(self.table) if orientation != "dk" else ():
            if self.fits(state, path):
                yield from self._at(state, path)

    def _at(self, state: StateDict, path: str) -> Iterator[QuantizerView]:
        roles = {
            "codebook": join(path, self.table),
            "projection": join(path, f"{self.projection}.weight"),
            "projection_bias": join(path, f"{self.projection}.bias"),
        }
        rows, weight, bias = (state.entries.get(key) for key in roles.values())
        if rows is None or weight is None or not (is_matrix(rows) and is_matrix(weight)):
            return
        if weight.shape[1] != rows.shape[1]:
            return
        if bias is not None and not (is_float(bias) and bias.shape == weight.shape[:1]):
            return
        yield QuantizerView(
            name=layer_path(path) or "vq",
            confidence=self.confidence,
            num_codes=rows.shape[0],
            dim=weight.shape[0],
            keys={role: state.raw[key] for role, key in roles.items() if key in state.raw},
            lookup=self.lookup,
            frozen=True,
            derived=True,
            load_codebook=partial(_load, rows, weight, bias),
        )


def _load(table: Tensor, weight: Tensor, bias: Tensor | None) -> Array:
    rows, matrix = (np.asarray(tensor.read(), dtype=np.float32) for tensor in (table, weight))
    codes: Array = rows @ matrix.T
    if bias is not None:
        codes += np.asarray(bias.read(), dtype=np.float32)
    return codes
