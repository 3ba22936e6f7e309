"""Meta's encodec and audiocraft, and what follows them (SpeechTokenizer, WavTokenizer, AcademiCodec, xcodec).

    quantizer.vq.layers.0._codebook.inited        [1] float; "inited" with one t
    quantizer.vq.layers.0._codebook.cluster_size  [K]
    quantizer.vq.layers.0._codebook.embed         [K, D]
    quantizer.vq.layers.0._codebook.embed_avg     [K, D]

All are buffers. Counts start at zero; smoothing 1e-5; decay 0.99.
"""

from vqdoctor.layouts.families._ema import EmaLayers
from vqdoctor.layouts.layout import Ema, Layout, Specificity, Vocabulary

LAYOUT = Layout(
    name="encodec", title="encodec and audiocraft", specificity=Specificity.LIBRARY,
    find=EmaLayers(
        codebook="_codebook.embed", counts="_codebook.cluster_size", sums="_codebook.embed_avg",
        initted="_codebook.inited", ema=Ema(start_count=0.0, smoothing=1e-5, default_decay=0.99),
    ),
    example={
        "quantizer.vq.layers.0._codebook.inited": (1,),
        "quantizer.vq.layers.0._codebook.cluster_size": (1024,),
        "quantizer.vq.layers.0._codebook.embed": (1024, 128),
        "quantizer.vq.layers.0._codebook.embed_avg": (1024, 128),
    },
    sees=("quantizer.vq.layers.0", 1024, 128),
    words=Vocabulary(
        layer="ResidualVectorQuantizer",
        arguments={
            "decay": "decay", "k-means": "kmeans_init=True, kmeans_iters=50",
            "dead codes": "threshold_ema_dead_code", "codes": "bins",
        },
    ),
)  # fmt: skip
