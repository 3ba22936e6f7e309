"""SimVQ of its authors (youngsheen), in a taming-style model: a frozen embedding behind a trained linear map.

    quantize.embedding.weight       [K, d] parameter without gradient
    quantize.embedding_proj.weight  [D, d]
    quantize.embedding_proj.bias    [D]; some forks have none

The codebook is embedding · Wᵀ + b. That the embedding never changes is health. Forks train it all the same,
or scale the codes to norm one: a file records neither, so the confidence is medium.
"""

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.families._projected import Projected
from vqdoctor.layouts.layout import Layout, Specificity

LAYOUT = Layout(
    name="simvq-embedding", title="SimVQ of its authors", specificity=Specificity.LIBRARY,
    find=Projected(table="embedding.weight", projection="embedding_proj", confidence=Confidence.MEDIUM),
    example={
        "quant_conv.weight": (128, 128, 1, 1), "quantize.embedding.weight": (8192, 128),
        "quantize.embedding_proj.weight": (128, 128), "quantize.embedding_proj.bias": (128,),
    },
    sees=("quantize", 8192, 128),
)  # fmt: skip
