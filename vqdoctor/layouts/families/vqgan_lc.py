"""VQGAN-LC: frozen CLIP features behind a trained linear map, at the root of the model.

    tok_embeddings.weight       [K, d] parameter without gradient
    codebook_projection.weight  [D, d]
    codebook_projection.bias    [D]

The codebook is tok_embeddings · Wᵀ + b. That the table never changes is health.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.families._projected import projected
from vqdoctor.layouts.layout import Example, Layout, Orientation, Specificity
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import QuantizerView


def find(state: StateDict, wish: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each table of features behind a `codebook_projection`."""
    for path in state.owners("tok_embeddings.weight") if wish != "dk" else ():
        yield from projected(
            state,
            path,
            layout=LAYOUT.name,
            table="tok_embeddings.weight",
            projection="codebook_projection",
            confidence=Confidence.HIGH,
        )


LAYOUT = Layout(
    name="vqgan-lc",
    title="VQGAN-LC",
    specificity=Specificity.LIBRARY,
    find=find,
    example=Example(
        shapes={
            "encoder.conv_in.weight": (128, 3, 3, 3),
            "tok_embeddings.weight": (1000, 768),
            "codebook_projection.weight": (8, 768),
            "codebook_projection.bias": (8,),
        },
        layer="vq",
        num_codes=1000,
        dim=8,
    ),
)
