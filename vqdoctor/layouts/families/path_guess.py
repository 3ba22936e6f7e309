"""Any matrix with the name of a table of codes, in a module that is named after quantization: a guess.

    quantizer._codebook.weight   [K, D]  BigCodec
    vqvae.quantizer.codebook     [K, D]  T2M-GPT
    bottleneck.level_blocks.0.k  [K, D]  jukebox

Token and position embeddings, losses, discriminators, maps between spaces and tables behind a projection
(as SimVQ's) are passed over. Codes are taken for rows, unless the other tensors tell: the layers around a VQ
layer have its dimension D among their own, and none of them has K. The confidence is low.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import build, is_matrix
from vqdoctor.layouts.implicit import SIGNS
from vqdoctor.layouts.layout import Layout, Orientation, Specificity
from vqdoctor.layouts.orientation import told_by_widths
from vqdoctor.layouts.siblings import is_projected, layer_path
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.layouts.words import TABLES, foreign_word, near_vq

_NAMES = (*TABLES, "vq", "quantize", "quantizer")


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each matrix that by its names may be a codebook."""
    for suffix in (*_NAMES, "weight", "k"):
        for path in state.owners(suffix):
            key = join(path, suffix)
            if is_matrix(state.entries[key]) and _is_named_so(state, key.split(".")):
                yield from build(
                    state,
                    name=layer_path(path),
                    roles={"codebook": key},
                    confidence=Confidence.LOW,
                    transposed=(orientation or told_by_widths(state, key)) == "dk",
                )


def _is_named_so(state: StateDict, tokens: list[str]) -> bool:
    if foreign_word(tokens) or not near_vq(tokens):
        return False
    owner, leaf = tokens[:-1], tokens[-1]
    if state.get(".".join(owner), SIGNS) is not None:
        return False
    if leaf == "k":
        return "level_blocks" in owner
    if leaf == "weight":
        # A bias beside it: a Linear. An index as its owner ("codebooks.0") stands for its list.
        named = next((t for t in reversed(owner) if not t.isdigit()), "")
        if named not in _NAMES or state.get(".".join(owner), "bias") is not None:
            return False
        owner = owner[:-1]
    return not is_projected(state, ".".join(owner))


LAYOUT = Layout(
    name="path-guess", title="a table of codes by its name", specificity=Specificity.GUESS,
    find=find,
    example={"vqvae.encoder.model.0.weight": (512, 263, 3), "vqvae.quantizer.codebook": (512, 512)},
    sees=("vqvae.quantizer", 512, 512),
)  # fmt: skip
