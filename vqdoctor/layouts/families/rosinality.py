"""rosinality's VQ-VAE-2 (and vector-quantize-pytorch of 2020): codes are columns.

    quantize_t.embed         [D, K]
    quantize_t.cluster_size  [K]
    quantize_t.embed_avg     [D, K]

All are buffers. Counts start at zero; smoothing 1e-5; decay 0.99. The same names with codes as rows are none
of this family and are left to the guess by EMA statistics. Where K = D the shapes cannot tell: then codes are
taken for columns, as in this library, and the confidence is medium.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import Ema, build
from vqdoctor.layouts.families._ema import EmaNames, layers
from vqdoctor.layouts.layout import Example, Layout, Orientation, Specificity
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import QuantizerView

_NAMES = EmaNames(codebook="embed", counts="cluster_size", sums="embed_avg")
_EMA = Ema(start_count=0.0, smoothing=1e-5, default_decay=0.99)


def find(state: StateDict, wish: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each module whose codes are, or may be, columns."""
    for path, roles, how in layers(state, _NAMES, wish or "dk"):
        if how.transposed or how.ambiguous:
            yield from build(
                state,
                layout=LAYOUT.name,
                name=path,
                roles=roles,
                confidence=Confidence.MEDIUM if how.ambiguous and wish is None else Confidence.HIGH,
                ema=_EMA,
                transposed=how.transposed,
            )


LAYOUT = Layout(
    name="rosinality",
    title="rosinality's VQ-VAE-2",
    specificity=Specificity.LIBRARY,
    find=find,
    example=Example(
        shapes={
            "quantize_t.embed": (64, 512),
            "quantize_t.cluster_size": (512,),
            "quantize_t.embed_avg": (64, 512),
        },
        layer="quantize_t",
        num_codes=512,
        dim=64,
    ),
)
