"""OptVQ: an embedding behind a square linear map.

    quantize.embedding.weight  [K, D] parameter, frozen on request (fix_codes)
    quantize.proj.weight       [D, D]
    quantize.proj.bias         [D]

The codebook is embedding · Wᵀ + b. With several heads they share it, and D is the dimension of one. A module
of another library may call a map of its input `proj`, and a file does not record whether the embedding is
frozen: so the confidence is low, and the embedding is not judged as untrained.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.families._projected import Projected
from vqdoctor.layouts.layout import Example, Layout, Orientation, Specificity
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.layouts.words import foreign_word, near_vq

_LAYERS = Projected(table="embedding.weight", projection="proj", confidence=Confidence.LOW)


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each embedding in a quantizer with a square, biased `proj` beside it."""
    for path in state.owners("embedding.weight") if orientation != "dk" else ():
        weight, bias = state.get(path, "proj.weight"), state.get(path, "proj.bias")
        if bias is None or weight is None or len(set(weight.shape)) > 1:
            continue
        tokens = path.split(".")
        if near_vq(tokens, reach=1) and not foreign_word(tokens):
            yield from _LAYERS.at(state, path)


LAYOUT = Layout(
    name="optvq", title="OptVQ", specificity=Specificity.PATH,
    find=find,
    example=Example(
        shapes={
            "quantize.embedding.weight": (16384, 64),
            "quantize.proj.weight": (64, 64),
            "quantize.proj.bias": (64,),
        },
        layer="quantize", num_codes=16384, dim=64,
    ),
)  # fmt: skip
