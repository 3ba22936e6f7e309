"""Any matrix with the name of a table of codes, in a module that is named after quantization: a guess.

    quantizer._codebook.weight   [K, D]  BigCodec
    vqvae.quantizer.codebook     [K, D]  T2M-GPT
    bottleneck.level_blocks.0.k  [K, D]  jukebox
    rq.books.0                   [K, D]  home-made: an nn.ParameterList, a table for each level or group
    pq.tables                    [G, K, D]  home-made: the tables of all groups in one tensor

Token and position embeddings, losses, discriminators, maps between spaces and tables behind a projection
(as SimVQ's) are passed over. Codes are taken for rows, unless the other tensors tell: the layers around a VQ
layer have its dimension D among their own, and none of them has K. The confidence is low.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import build, is_matrix, is_stack
from vqdoctor.layouts.implicit import SIGNS
from vqdoctor.layouts.layout import Layout, Orientation, Specificity
from vqdoctor.layouts.orientation import told_by_widths
from vqdoctor.layouts.siblings import is_projected, layer_path
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.layouts.words import TABLES, foreign_word, near_vq

_NAMES = (*TABLES, "vq", "quantize", "quantizer")
_BOOKS = "books"
_LISTS = (*_NAMES, _BOOKS, "tables", "dictionaries")
"""Names of a list of tables; one of books is a list of codebooks, whatever it is part of."""
_STACKS = (_BOOKS, "tables", "dictionaries")
"""Names of a tensor that holds several tables, beside those of a single one."""


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each matrix that by its names may be a codebook."""
    numbers = dict.fromkeys(leaf for name in state.entries if (leaf := name.rpartition(".")[2]).isdigit())
    for suffix in (*_NAMES, *_STACKS, "weight", "k", *numbers):
        for path in state.owners(suffix):
            key = join(path, suffix)
            tensor = state.entries[key]
            shaped = is_matrix(tensor) or (suffix in (*_NAMES, *_STACKS) and is_stack(tensor))
            if shaped and _is_named_so(state, key.split(".")):
                yield from build(
                    state,
                    name=key if suffix in numbers else layer_path(path),
                    roles={"codebook": key},
                    confidence=Confidence.LOW,
                    transposed=(orientation or (is_matrix(tensor) and told_by_widths(state, key))) == "dk",
                )


def _is_named_so(state: StateDict, tokens: list[str]) -> bool:
    owner, leaf = tokens[:-1], tokens[-1]
    path = ".".join(owner)
    if foreign_word(tokens) or state.get(path, SIGNS) is not None:
        return False
    is_near = near_vq(tokens)
    if leaf == "k":
        return is_near and "level_blocks" in owner
    if leaf == "weight" or leaf.isdigit():
        # A bias beside it: a Linear. An index as its owner ("codebooks.0") stands for its list.
        named = next((t for t in reversed(owner) if not t.isdigit()), "")
        is_listed = leaf.isdigit() or owner[-1:] != [named]
        if named not in (_LISTS if is_listed else _NAMES) or state.get(path, "bias") is not None:
            return False
        is_near = is_near or (is_listed and named == _BOOKS)
        path = ".".join(owner[:-1])
    return is_near and not is_projected(state, path)


LAYOUT = Layout(
    name="path-guess", title="a table of codes by its name", specificity=Specificity.GUESS,
    find=find,
    example={"vqvae.encoder.model.0.weight": (512, 263, 3), "vqvae.quantizer.codebook": (512, 512)},
    sees=("vqvae.quantizer", 512, 512),
)  # fmt: skip
