"""SimVQ of lucidrains' vector-quantize-pytorch: a frozen table behind a trained linear map.

    vq.frozen_codebook        [K, d] buffer
    vq.code_transform.weight  [D, d]
    vq.code_transform.bias    [D], if the user's own transform has one

Residual ones are `layers.{q}.*`. The codebook is frozen_codebook · Wᵀ + b. That the table never changes is
health. A transform of several layers (`code_transform.0.weight`, …) can't be computed from the file, which
does not record its nonlinearities: it is left to a model.
"""

from vqdoctor.layouts.families._projected import Projected
from vqdoctor.layouts.layout import Layout, Specificity, Vocabulary

LAYOUT = Layout(
    name="simvq", title="SimVQ of vector-quantize-pytorch", specificity=Specificity.LIBRARY,
    find=Projected(table="frozen_codebook", projection="code_transform", lookup="euclidean"),
    example={"vq.frozen_codebook": (512, 32), "vq.code_transform.weight": (64, 32)},
    sees=("vq", 512, 64),
    words=Vocabulary(
        layer="SimVQ", stack="ResidualSimVQ",
        arguments={"VQ weight": "commitment_weight", "codes": "codebook_size", "rotation": "rotation_trick"},
    ),
)  # fmt: skip
