"""lucidrains' vector-quantize-pytorch, single, residual and grouped, since 2021-10.

    vq._codebook.initted       () bool; before 2025 [1] float
    vq._codebook.cluster_size  [H, K]
    vq._codebook.embed_avg     [H, K, D]
    vq._codebook.embed         [H, K, D]

H is 1 unless each head has a codebook of its own; releases before 2022-07-30 have no H axis. Residual
layers are `layers.{q}._codebook.*`, grouped ones `rvqs.{g}.layers.{q}._codebook.*`; a shared codebook is
repeated under every layer. Cosine codebooks have the same keys and rows of norm one.

Counts start at one since 2024-07-10 and at zero before; smoothing 1e-5; default decay 0.8.
"""

from vqdoctor.layouts.families._ema import EmaLayers
from vqdoctor.layouts.layout import Ema, Layout, Specificity, Vocabulary

LAYOUT = Layout(
    name="vector-quantize-pytorch", title="lucidrains' vector-quantize-pytorch",
    specificity=Specificity.LIBRARY,
    find=EmaLayers(
        codebook="_codebook.embed", counts="_codebook.cluster_size", sums="_codebook.embed_avg",
        initted="_codebook.initted",
        ema=Ema(smoothing=1e-5, default_decay=0.8),
        # The flag became a bool after the counts had come to start at one; a float flag dates nothing.
        from_one_with_bool=True,
    ),
    example={
        "vq.project_in.weight": (64, 128), "vq._codebook.initted": (),
        "vq._codebook.cluster_size": (1, 512), "vq._codebook.embed_avg": (1, 512, 64),
        "vq._codebook.embed": (1, 512, 64),
    },
    sees=("vq", 512, 64),
    words=Vocabulary(
        layer="VectorQuantize", stack="ResidualVQ",
        arguments={
            "decay": "decay", "k-means": "kmeans_init=True, kmeans_iters=10",
            "dead codes": "threshold_ema_dead_code", "VQ weight": "commitment_weight",
            "codes": "codebook_size", "rotation": "rotation_trick", "unit length": "use_cosine_sim",
            "entropy": "codebook_diversity_loss_weight",
        },
    ),
)  # fmt: skip
