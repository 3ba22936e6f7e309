"""RandomProjectionQuantizer of vector-quantize-pytorch: a random codebook behind a random projection.

    rand_projs                 [H, dim, d] buffer
    vq._codebook.initted       () bool
    vq._codebook.cluster_size  [H, K]
    vq._codebook.embed_avg     [H, K, D]
    vq._codebook.embed         [H, K, D]

Nothing of it is ever trained: it turns inputs into fixed labels (BEST-RQ). So counts that were never written
and a codebook as it was initialised are health. Codes are chosen by angle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vqdoctor.layouts.build import is_float
from vqdoctor.layouts.families import vector_quantize_pytorch
from vqdoctor.layouts.layout import Layout, Orientation, Specificity
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import QuantizerView

_PROJECTION = "rand_projs"
_TABLE = "vq._codebook.embed"


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield the library's own views of each codebook that lies behind a random projection."""
    behind: dict[str, str] = {}
    for path in state.owners(_PROJECTION):
        projection, table = state.entries[join(path, _PROJECTION)], state.get(path, _TABLE)
        if table is None or not len(projection.shape) == 3 == len(table.shape):
            continue
        if is_float(projection) and projection.shape[0] == table.shape[0]:
            behind[state.raw[join(path, _TABLE)]] = state.raw[join(path, _PROJECTION)]
    for view in vector_quantize_pytorch.LAYOUT.find(state, orientation) if behind else ():
        if key := behind.get(view.keys["codebook"]):
            keys = {**view.keys, "input_projection": key}
            yield replace(view, keys=keys, lookup="cosine", frozen=True)


LAYOUT = Layout(
    name="random-projection", title="RandomProjectionQuantizer of vector-quantize-pytorch",
    specificity=Specificity.VARIANT,
    find=find,
    example={
        "rand_projs": (1, 80, 16), "vq._codebook.initted": (), "vq._codebook.cluster_size": (1, 8192),
        "vq._codebook.embed_avg": (1, 8192, 16), "vq._codebook.embed": (1, 8192, 16),
    },
    sees=("vq", 8192, 16),
)  # fmt: skip
