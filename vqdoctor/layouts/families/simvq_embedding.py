"""SimVQ of its authors (youngsheen), in a taming-style model: a frozen embedding behind a trained linear map.

    quantize.embedding.weight       [K, d] parameter without gradient
    quantize.embedding_proj.weight  [D, d]
    quantize.embedding_proj.bias    [D]; some forks have none

The codebook is embedding · Wᵀ + b. That the embedding never changes is health. Forks train it all the same,
or scale the codes to norm one: a file tells neither, so the confidence is medium.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.families._projected import projected
from vqdoctor.layouts.layout import Example, Layout, Orientation, Specificity
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import QuantizerView


def find(state: StateDict, wish: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each embedding behind an `embedding_proj`."""
    for path in state.owners("embedding.weight") if wish != "dk" else ():
        yield from projected(
            state,
            path,
            layout=LAYOUT.name,
            table="embedding.weight",
            projection="embedding_proj",
            confidence=Confidence.MEDIUM,
        )


LAYOUT = Layout(
    name="simvq-embedding",
    title="SimVQ of its authors",
    specificity=Specificity.LIBRARY,
    find=find,
    example=Example(
        shapes={
            "quant_conv.weight": (128, 128, 1, 1),
            "quantize.embedding.weight": (8192, 128),
            "quantize.embedding_proj.weight": (128, 128),
            "quantize.embedding_proj.bias": (128,),
        },
        layer="quantize",
        num_codes=8192,
        dim=128,
    ),
)
