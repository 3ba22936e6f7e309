"""Tables that look like a codebook: a trained matrix maps the whole table to the codes, as in SimVQ.

Such a table rightly stays as it was drawn, and distances to its rows have no meaning. It is known by the
operation that gets both it and a trained matrix; a lookup, and a comparison with z_e, get no such matrix. A
table that is compared with z_e itself is a codebook, whatever else is made of it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from vqdoctor.models.tensors import tensors_of

if TYPE_CHECKING:
    from vqdoctor.capture.run import Capture


def mapped(capture: Capture) -> dict[str, str]:
    """Return the layers whose table a trained matrix maps to the codes, each with that matrix's name.

    Looked at are tables without EMA counts that require no gradient; where there is none, no model is run.
    """
    own = {**dict(capture.model.named_parameters()), **dict(capture.model.named_buffers())}
    places = {
        view.name: capture.names[view.keys["codebook"]]
        for view in capture.views
        if view.counts is None and not view.derived and not view.frozen and "codebook" in view.keys
    }
    still = {name: at for name, at in places.items() if at in own and not own[at].requires_grad}
    if not still or not capture.first_batches:
        return {}
    model = capture.copy(training=True)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tables = {tensors[at].data_ptr(): name for name, at in still.items()}
    trained = {p.data_ptr(): name for name, p in model.named_parameters() if p.requires_grad and p.ndim > 1}
    maps = _Maps(tables, trained, {tensor.data_ptr() for tensor in tensors.values()})
    with maps:
        capture.task.losses(model, capture.first_batches[0])
    return {name: matrix for name, matrix in maps.found.items() if name not in maps.compared}


class _Maps(TorchFunctionMode):
    """Sees which matrices are applied to the whole of a table.

    Attributes:
        found: the tables' layers, each with the first matrix.
        compared: the tables' layers of which an operation gets the table itself and what the model computed.
    """

    def __init__(self, tables: Mapping[int, str], matrices: Mapping[int, str], own: Container[int]) -> None:
        super().__init__()
        self._tables, self._matrices, self._own = tables, matrices, own
        self.found: dict[str, str] = {}
        self.compared: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            floats = (t for t in tensors_of((args, kwargs or {})) if t.is_floating_point() and t.numel() > 1)
            given = [t.data_ptr() for t in floats if t.layout is torch.strided]
            if any(at not in self._own for at in given):
                self.compared.update(self._tables[at] for at in given if at in self._tables)
            matrix = next((self._matrices[at] for at in given if at in self._matrices), None)
            if matrix is not None:
                self.found.update((self._tables[at], matrix) for at in given if at in self._tables)
        return output
