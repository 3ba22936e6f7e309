"""A codebook trained by gradient as an `nn.Embedding` in a module that is named after quantization.

    quantize.embedding.weight              [K, D]  taming, latent diffusion, diffusers' VQModel, Chameleon, …
    quantizer.embedding.weight             [K, D]
    vq.embedding.weight                    [K, D]
    _vq_vae._embedding.weight              [K, D]  zalando without EMA
    vector_quantization.embedding.weight   [K, D]

There are no counts: usage needs data. Rows are codes, as in every `nn.Embedding`. An embedding behind a
projection (SimVQ, OptVQ) is none of these: the codes in use are the projected ones.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import build, is_matrix
from vqdoctor.layouts.layout import Layout, Orientation, Specificity, Vocabulary
from vqdoctor.layouts.siblings import is_projected
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.layouts.words import foreign_word, near_vq


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each embedding right under a module that is named after quantization."""
    for suffix in ("embedding.weight", "_embedding.weight"):
        for path in state.owners(suffix):
            tokens = path.split(".")
            if not near_vq(tokens, reach=1) or foreign_word(tokens) or is_projected(state, path):
                continue
            if is_matrix(state.get(path, suffix)):
                yield from build(
                    state,
                    name=path,
                    roles={"codebook": join(path, suffix)},
                    confidence=Confidence.MEDIUM,
                    transposed=orientation == "dk",
                )


LAYOUT = Layout(
    name="embedding", title="an nn.Embedding in a quantizer (taming, diffusers)",
    specificity=Specificity.PATH,
    find=find,
    example={
        "quant_conv.weight": (256, 256, 1, 1), "quantize.embedding.weight": (1024, 256),
        "post_quant_conv.weight": (256, 256, 1, 1),
    },
    sees=("quantize", 1024, 256),
    words=Vocabulary(
        layer="VectorQuantizer", arguments={"beta on commitment": "legacy=False"}, of="taming, diffusers",
    ),
)  # fmt: skip
