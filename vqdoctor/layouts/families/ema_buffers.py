"""Home-made EMA layers whose statistics are buffers beside a buffer `embedding`.

    vq.embedding         [K, D]
    vq.ema_cluster_size  [K]
    vq.ema_embed_sum     [K, D]   counts start at one, sums as a copy of the codebook
    vq.steps             []       updates, in some of them

    vq.embedding         [K, D]
    vq.ema_cluster_size  [K]
    vq.ema_cluster_sum   [K, D]   counts and sums start at zero

A Conv2d-VQ model of motion-sensor windows wrote both. Its decay was 0.95; the smoothing differs from copy to
copy, and counts as unknown.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.layouts.build import Ema
from vqdoctor.layouts.families._ema import EmaLayers
from vqdoctor.layouts.layout import Example, Layout, Orientation, Specificity
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import QuantizerView

_LAYERS = tuple(
    EmaLayers(
        codebook="embedding",
        counts="ema_cluster_size",
        sums=sums,
        ema=Ema(start_count=start, default_decay=0.95),
    )
    for sums, start in (("ema_embed_sum", 1.0), ("ema_cluster_sum", 0.0))
)


def find(state: StateDict, wish: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each layer under either name of the sums."""
    for layers in _LAYERS:
        yield from layers(state, wish)


LAYOUT = Layout(
    name="ema-buffers",
    title="home-made EMA layers with their statistics in buffers",
    specificity=Specificity.LIBRARY,
    find=find,
    example=Example(
        shapes={
            "encoder.0.weight": (64, 9, 3, 3),
            "vq.embedding": (512, 64),
            "vq.ema_cluster_size": (512,),
            "vq.ema_embed_sum": (512, 64),
            "vq.steps": (),
        },
        layer="vq",
        num_codes=512,
        dim=64,
    ),
)
