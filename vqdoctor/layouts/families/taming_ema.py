"""The EMA variant of taming-transformers: everything lies in the embedding module.

    quantize.embedding.weight        [K, D]
    quantize.embedding.cluster_size  [K]
    quantize.embedding.embed_avg     [K, D]

All are parameters without gradient. Counts start at zero; smoothing 1e-5; decay 0.99.

BEiT-v2 writes the same names, never updates the last two, and keeps its living counts in
`quantize.cluster_size`: where that key stands, the layer is left to the guess by EMA statistics.
"""

from vqdoctor.layouts.families._ema import EmaLayers
from vqdoctor.layouts.layout import Ema, Layout, Specificity, Vocabulary

LAYOUT = Layout(
    name="taming-ema", title="the EMA quantizer of taming-transformers", specificity=Specificity.LIBRARY,
    find=EmaLayers(
        codebook="embedding.weight", counts="embedding.cluster_size", sums="embedding.embed_avg",
        unless="cluster_size", ema=Ema(start_count=0.0, smoothing=1e-5, default_decay=0.99),
    ),
    example={
        "quant_conv.weight": (64, 64, 1, 1), "quantize.embedding.weight": (1024, 64),
        "quantize.embedding.cluster_size": (1024,), "quantize.embedding.embed_avg": (1024, 64),
    },
    sees=("quantize", 1024, 64),
    words=Vocabulary(
        layer="EMAVectorQuantizer", arguments={"decay": "decay", "VQ weight": "beta", "codes": "n_embed"},
        returns="z_q, vq_loss, (_, _, indices)",
    ),
)  # fmt: skip
