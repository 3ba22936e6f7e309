"""The VectorQuantizerEMA of zalandoresearch's notebook.

    _vq_vae._embedding.weight   [K, D] parameter
    _vq_vae._ema_w              [K, D] parameter: the EMA sums
    _vq_vae._ema_cluster_size   [K] buffer

Counts start at zero; decay 0.99. The 1e-5 smoothing is written back into the counts, so that the codebook is
exactly sums / counts: a reader need not smooth again. Until the first update `_ema_w` is N(0, 1) noise of
its own.
"""

from vqdoctor.layouts.families._ema import EmaLayers
from vqdoctor.layouts.layout import Ema, Layout, Specificity, Vocabulary

LAYOUT = Layout(
    name="zalando-ema", title="zalando's VectorQuantizerEMA", specificity=Specificity.LIBRARY,
    find=EmaLayers(
        codebook="_embedding.weight", counts="_ema_cluster_size", sums="_ema_w",
        ema=Ema(start_count=0.0, smoothing=0.0, default_decay=0.99),
    ),
    example={
        "_pre_vq_conv.weight": (64, 128, 1, 1), "_vq_vae._ema_w": (512, 64),
        "_vq_vae._ema_cluster_size": (512,), "_vq_vae._embedding.weight": (512, 64),
    },
    sees=("_vq_vae", 512, 64),
    words=Vocabulary(
        layer="VectorQuantizerEMA",
        arguments={"decay": "decay", "VQ weight": "commitment_cost", "codes": "num_embeddings"},
        returns="vq_loss, z_q, perplexity, _",
    ),
)  # fmt: skip
