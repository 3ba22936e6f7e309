"""The VectorQuantizerEMA of zalandoresearch's notebook.

    _vq_vae._embedding.weight   [K, D] parameter
    _vq_vae._ema_w              [K, D] parameter: the EMA sums
    _vq_vae._ema_cluster_size   [K] buffer

Counts start at zero; decay 0.99. The 1e-5 smoothing is written back into the counts, so that the codebook is
exactly sums / counts: a reader need not smooth again. Until the first update `_ema_w` is N(0, 1) noise of
its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.layouts.build import Ema
from vqdoctor.layouts.families._ema import EmaNames, rows_first
from vqdoctor.layouts.layout import Example, Layout, Orientation, Specificity
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import QuantizerView

_NAMES = EmaNames(codebook="_embedding.weight", counts="_ema_cluster_size", sums="_ema_w")
_EMA = Ema(start_count=0.0, smoothing=0.0, default_decay=0.99)


def find(state: StateDict, wish: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each module that holds the three tensors."""
    return rows_first(state, _NAMES, layout=LAYOUT.name, ema=_EMA)


LAYOUT = Layout(
    name="zalando-ema",
    title="zalando's VectorQuantizerEMA",
    specificity=Specificity.LIBRARY,
    find=find,
    example=Example(
        shapes={
            "_pre_vq_conv.weight": (64, 128, 1, 1),
            "_vq_vae._ema_w": (512, 64),
            "_vq_vae._ema_cluster_size": (512,),
            "_vq_vae._embedding.weight": (512, 64),
        },
        layer="_vq_vae",
        num_codes=512,
        dim=64,
    ),
)
