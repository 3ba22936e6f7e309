"""Noise substitution (NSVQ): the package `nsvq`, and the authors' earlier code, which LAPA uses.

    codebook        [K, D] parameter; residual and product ones [Q, K, D]
    codebook_usage  [K] or [Q, K] int32
    iter_counter    [1] int32

    vq.codebooks    [K, D] parameter, and nothing else: medium confidence

`codebook_usage` is set back to zero every few hundred steps, and counts the batches in which a code was
chosen at least once, not its vectors: so usage needs data. There is no VQ loss; the codebook is trained
through noise of the length of the error.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import build, is_float, is_matrix
from vqdoctor.layouts.layout import Layout, Orientation, Specificity, Vocabulary
from vqdoctor.layouts.siblings import layer_path
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.layouts.words import foreign_word


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each codebook, and for each level or part of a residual or product one."""
    if orientation == "dk":
        return
    for path in state.owners("codebook"):
        table, usage = state.get(path, "codebook"), state.get(path, "codebook_usage")
        if table is None or usage is None or state.get(path, "iter_counter") is None:
            continue
        is_codebook = len(table.shape) in (2, 3) and min(table.shape) > 0 and is_float(table)
        if is_codebook and usage.shape == table.shape[:-1]:
            yield from _views(state, path, join(path, "codebook"), Confidence.HIGH)
    for path in state.owners("codebooks"):
        key = join(path, "codebooks")
        if is_matrix(state.entries[key]) and not foreign_word(key.split(".")):
            yield from _views(state, path, key, Confidence.MEDIUM)


def _views(state: StateDict, path: str, key: str, confidence: Confidence) -> Iterator[QuantizerView]:
    return build(
        state, name=layer_path(path), roles={"codebook": key}, confidence=confidence, lookup="euclidean"
    )


LAYOUT = Layout(
    name="nsvq", title="NSVQ", specificity=Specificity.LIBRARY,
    find=find,
    example={"vq.codebook": (256, 64), "vq.codebook_usage": (256,), "vq.iter_counter": (1,)},
    sees=("vq", 256, 64),
    words=Vocabulary(layer="NSVQ", stack="ResidualNSVQ", arguments={"codes": "num_embeddings"}),
)  # fmt: skip
