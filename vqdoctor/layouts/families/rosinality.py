"""rosinality's VQ-VAE-2 (and vector-quantize-pytorch of 2020): codes are columns.

    quantize_t.embed         [D, K]
    quantize_t.cluster_size  [K]
    quantize_t.embed_avg     [D, K]

All are buffers. Counts start at zero; smoothing 1e-5; decay 0.99. The same names with codes as rows are none
of this family and are left to the guess by EMA statistics. Where K = D the shapes cannot show it: then each
code is parallel to its sum along one axis only. Where the sums do not decide, codes are taken for columns, as
in this library, and the confidence is medium.
"""

from vqdoctor.layouts.families._ema import EmaLayers
from vqdoctor.layouts.layout import Ema, Layout, Specificity, Vocabulary

LAYOUT = Layout(
    name="rosinality", title="rosinality's VQ-VAE-2", specificity=Specificity.LIBRARY,
    find=EmaLayers(
        codebook="embed", counts="cluster_size", sums="embed_avg",
        ema=Ema(start_count=0.0, smoothing=1e-5, default_decay=0.99), columns=True,
    ),
    example={
        "quantize_t.embed": (64, 512), "quantize_t.cluster_size": (512,), "quantize_t.embed_avg": (64, 512),
    },
    sees=("quantize_t", 512, 64),
    words=Vocabulary(
        layer="Quantize", arguments={"decay": "decay", "codes": "n_embed"}, returns="z_q, vq_loss, indices",
    ),
)  # fmt: skip
