"""Kyutai's Mimi, in moshi and in Hugging Face's port: the codebook itself is not stored.

    quantizer.rvq_first.vq.layers.0._codebook._initialized   [1] float                      moshi
    quantizer.rvq_first.vq.layers.0._codebook.cluster_usage  [K]
    quantizer.rvq_first.vq.layers.0._codebook.embedding_sum  [K, D]

    quantizer.semantic_residual_vector_quantizer.layers.0.codebook.initialized    [1] float  Hugging Face
    quantizer.semantic_residual_vector_quantizer.layers.0.codebook.cluster_usage  [K]
    quantizer.semantic_residual_vector_quantizer.layers.0.codebook.embed_sum      [K, D]

The codebook is sums / max(usage, 1e-5), without smoothing. moshi also reads files of older names (inited,
cluster_size, embed_avg or embed_sum); with a codebook (`embed`) beside them they are encodec's, not these.
All are buffers. Usage starts at one; decay 0.99.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np

from vqdoctor.layouts.build import build, fit, is_matrix
from vqdoctor.layouts.layout import Ema, Layout, Orientation, Specificity, Vocabulary
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import LEAST_COUNT, Array, QuantizerView

_SUMS = ("embedding_sum", "embed_sum", "embed_avg")
_COUNTS = ("cluster_usage", "cluster_size")
_FLAGS = ("_initialized", "initialized", "inited")
_STORED = ("embed", "embedding", "weight")
_EMA = Ema(start_count=1.0, smoothing=0.0, default_decay=0.99)


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each level, with the codebook computed from sums and usage."""
    for inner, sums in product(("_codebook", "codebook"), _SUMS):
        for path in state.owners(f"{inner}.{sums}"):
            roles = _roles(state, join(path, inner), sums)
            if roles is not None:
                for view in build(state, name=path, roles=roles, ema=_EMA, lookup="euclidean"):
                    yield replace(view, derived=True, load_codebook=partial(_codebook, view))


def _roles(state: StateDict, path: str, sums: str) -> dict[str, str] | None:
    """Return role to clean name; None where a codebook is stored, a tensor is missing, or shapes differ."""
    counts = next((name for name in _COUNTS if state.get(path, name) is not None), None)
    flag = next((name for name in _FLAGS if state.get(path, name) is not None), None)
    table = state.get(path, sums)
    if counts is None or flag is None or table is None or not is_matrix(table):
        return None
    usage = state.entries[join(path, counts)]
    how = fit(table.shape, usage.shape)
    if how is None or how.transposed or how.num_codes != table.shape[0]:
        return None
    if any(state.get(path, name) is not None for name in _STORED):
        return None
    return {
        # No codebook is stored; every view names a tensor for it, and this one has its shape.
        "codebook": join(path, sums),
        "counts": join(path, counts),
        "sums": join(path, sums),
        "initted": join(path, flag),
    }


def _codebook(view: QuantizerView) -> Array:
    assert view.sums is not None
    assert view.counts is not None
    return np.asarray(view.sums / np.maximum(view.counts, np.float32(LEAST_COUNT))[:, None], dtype=np.float32)


LAYOUT = Layout(
    name="mimi", title="Mimi (moshi and Hugging Face)", specificity=Specificity.LIBRARY,
    find=find,
    example={
        "quantizer.rvq_first.vq.layers.0._codebook._initialized": (1,),
        "quantizer.rvq_first.vq.layers.0._codebook.cluster_usage": (2048,),
        "quantizer.rvq_first.vq.layers.0._codebook.embedding_sum": (2048, 256),
        "quantizer.rvq_first.output_proj.weight": (512, 256, 1),
    },
    sees=("quantizer.rvq_first.vq.layers.0", 2048, 256),
    words=Vocabulary(
        layer="SplitResidualVectorQuantizer",
        arguments={"decay": "decay", "dead codes": "threshold_usage_ratio=0.1", "codes": "bins"},
        of="moshi",
    ),
)  # fmt: skip
