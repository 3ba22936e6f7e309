"""OptVQ: an embedding behind a square linear map.

    quantize.embedding.weight  [K, D] parameter, frozen on request (fix_codes)
    quantize.proj.weight       [D, D]
    quantize.proj.bias         [D]

The codebook is embedding · Wᵀ + b. With several heads they share it, and D is the dimension of one. A module
of another library may call a map of its input `proj`, and a file does not record whether the embedding is
frozen: so the confidence is low, and the embedding is not judged as untrained.
"""

from __future__ import annotations

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.families._projected import Projected
from vqdoctor.layouts.layout import Layout, Specificity
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.words import foreign_word, near_vq


def _fits(state: StateDict, path: str) -> bool:
    """Whether the embedding is in a quantizer, with a square, biased `proj` beside it."""
    weight, bias, tokens = state.get(path, "proj.weight"), state.get(path, "proj.bias"), path.split(".")
    is_square = weight is not None and bias is not None and len(set(weight.shape)) == 1
    return is_square and near_vq(tokens, reach=1) and not foreign_word(tokens)


LAYOUT = Layout(
    name="optvq", title="OptVQ", specificity=Specificity.PATH,
    find=Projected(
        table="embedding.weight", projection="proj", confidence=Confidence.LOW, fits=_fits
    ),
    example={
        "quantize.embedding.weight": (16384, 64), "quantize.proj.weight": (64, 64),
        "quantize.proj.bias": (64,),
    },
    sees=("quantize", 16384, 64),
)  # fmt: skip
