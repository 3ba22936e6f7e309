"""Hugging Face's EncodecModel and XcodecModel.

    quantizer.layers.0.codebook.inited        [1] float
    quantizer.layers.0.codebook.cluster_size  [K]
    quantizer.layers.0.codebook.embed         [K, D]
    quantizer.layers.0.codebook.embed_avg     [K, D]

All are buffers that stem from the original training; the port itself never updates them. Counts started at
zero; smoothing 1e-5; decay 0.99.
"""

from vqdoctor.layouts.families._ema import EmaLayers
from vqdoctor.layouts.layout import Ema, Layout, Specificity

LAYOUT = Layout(
    name="hf-encodec", title="Hugging Face's port of encodec", specificity=Specificity.LIBRARY,
    find=EmaLayers(
        codebook="codebook.embed", counts="codebook.cluster_size", sums="codebook.embed_avg",
        initted="codebook.inited", ema=Ema(start_count=0.0, smoothing=1e-5, default_decay=0.99),
    ),
    example={
        "quantizer.layers.0.codebook.inited": (1,), "quantizer.layers.0.codebook.cluster_size": (1024,),
        "quantizer.layers.0.codebook.embed": (1024, 128),
        "quantizer.layers.0.codebook.embed_avg": (1024, 128),
    },
    sees=("quantizer.layers.0", 1024, 128),
)  # fmt: skip
