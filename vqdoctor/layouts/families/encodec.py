"""Meta's encodec and audiocraft, and what follows them (SpeechTokenizer, WavTokenizer, AcademiCodec, xcodec).

    quantizer.vq.layers.0._codebook.inited        [1] float; "inited" with one t
    quantizer.vq.layers.0._codebook.cluster_size  [K]
    quantizer.vq.layers.0._codebook.embed         [K, D]
    quantizer.vq.layers.0._codebook.embed_avg     [K, D]

All are buffers. Counts start at zero; smoothing 1e-5; decay 0.99.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.layouts.build import Ema
from vqdoctor.layouts.families._ema import EmaNames, rows_first
from vqdoctor.layouts.layout import Example, Layout, Orientation, Specificity
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import QuantizerView

_NAMES = EmaNames(
    codebook="_codebook.embed",
    counts="_codebook.cluster_size",
    sums="_codebook.embed_avg",
    initted="_codebook.inited",
)
_EMA = Ema(start_count=0.0, smoothing=1e-5, default_decay=0.99)


def find(state: StateDict, wish: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each residual level."""
    return rows_first(state, _NAMES, layout=LAYOUT.name, ema=_EMA)


LAYOUT = Layout(
    name="encodec",
    title="encodec and audiocraft",
    specificity=Specificity.LIBRARY,
    find=find,
    example=Example(
        shapes={
            "quantizer.vq.layers.0._codebook.inited": (1,),
            "quantizer.vq.layers.0._codebook.cluster_size": (1024,),
            "quantizer.vq.layers.0._codebook.embed": (1024, 128),
            "quantizer.vq.layers.0._codebook.embed_avg": (1024, 128),
        },
        layer="quantizer.vq.layers.0",
        num_codes=1024,
        dim=128,
    ),
)
