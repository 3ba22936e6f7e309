"""vqdoctor's own reference model (`VectorQuantizerEMA2D`).

    vq.embedding          [K, D]
    vq.ema_cluster_size   [K]
    vq.ema_embedding_sum  [K, D]

All are buffers. Counts start at one; smoothing 1e-5; decay 0.99.
"""

from vqdoctor.layouts.families._ema import EmaLayers
from vqdoctor.layouts.layout import Ema, Layout, Specificity, Vocabulary

LAYOUT = Layout(
    name="reference", title="vqdoctor's reference model", specificity=Specificity.LIBRARY,
    find=EmaLayers(
        codebook="embedding", counts="ema_cluster_size", sums="ema_embedding_sum",
        ema=Ema(start_count=1.0, smoothing=1e-5, default_decay=0.99),
    ),
    example={
        "encoder.0.weight": (64, 1, 3, 3), "vq.embedding": (256, 64), "vq.ema_cluster_size": (256,),
        "vq.ema_embedding_sum": (256, 64),
    },
    sees=("vq", 256, 64),
    words=Vocabulary(
        layer="VectorQuantizerEMA2D", arguments={"decay": "decay", "codes": "num_codes"},
    ),
)  # fmt: skip
