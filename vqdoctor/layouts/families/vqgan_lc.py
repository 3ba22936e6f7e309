"""VQGAN-LC: frozen CLIP features behind a trained linear map, at the root of the model.

    tok_embeddings.weight       [K, d] parameter without gradient
    codebook_projection.weight  [D, d]
    codebook_projection.bias    [D]

The codebook is tok_embeddings · Wᵀ + b. That the table never changes is health.
"""

from vqdoctor.layouts.families._projected import Projected
from vqdoctor.layouts.layout import Layout, Specificity

LAYOUT = Layout(
    name="vqgan-lc", title="VQGAN-LC", specificity=Specificity.LIBRARY,
    find=Projected(table="tok_embeddings.weight", projection="codebook_projection"),
    example={
        "encoder.conv_in.weight": (128, 3, 3, 3), "tok_embeddings.weight": (1000, 768),
        "codebook_projection.weight": (8, 768), "codebook_projection.bias": (8,),
    },
    sees=("vq", 1000, 8),
)  # fmt: skip
