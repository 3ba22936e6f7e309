"""The k-means quantizer of fairseq's vq-wav2vec: codes first, groups second.

    vector_quantizer.embedding            [K, G, D]; [K, 1, D] if the groups share one table
    vector_quantizer.projection.0.weight  [G·D, D, 1]: a convolution of G groups
    vector_quantizer.projection.1.weight  [G·D]: its group norm

One view for each group. There are no counts: usage needs data.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.layouts.build import build, is_float
from vqdoctor.layouts.layout import Layout, Orientation, Specificity
from vqdoctor.layouts.place import Place
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import QuantizerView, Tensor


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each group of each quantizer."""
    for path in state.owners("embedding") if orientation != "dk" else ():
        table = state.get(path, "embedding")
        if table is None or not _is_grouped(state, path, table):
            continue
        codes, groups, _ = table.shape
        yield from build(
            state,
            name=path,
            roles={"codebook": join(path, "embedding")},
            num_codes=codes,
            lookup="euclidean",
            places=[Place(head=group, head_axis=1) for group in range(groups)],
        )


def _is_grouped(state: StateDict, path: str, table: Tensor) -> bool:
    conv, norm = state.get(path, "projection.0.weight"), state.get(path, "projection.1.weight")
    if conv is None or norm is None or len(table.shape) != 3 or min(table.shape) < 1 or not is_float(table):
        return False
    _, groups, dim = table.shape
    width = norm.shape[0] if len(norm.shape) == 1 else 0
    return conv.shape == (width, dim, 1) and groups in (1, width // dim) and width % dim == 0


LAYOUT = Layout(
    name="vq-wav2vec", title="the k-means quantizer of vq-wav2vec", specificity=Specificity.LIBRARY,
    find=find,
    example={
        "vector_quantizer.embedding": (320, 1, 256), "vector_quantizer.projection.0.weight": (512, 256, 1),
        "vector_quantizer.projection.1.weight": (512,), "vector_quantizer.projection.1.bias": (512,),
    },
    sees=("vector_quantizer", 320, 256),
)  # fmt: skip
