"""Descript's audio codec (DAC), SNAC, and Hugging Face's DacModel: codes of few dimensions between two maps.

    quantizer.quantizers.0.codebook.weight  [K, D] parameter, D = 8
    quantizer.quantizers.0.in_proj.*        [D, dim, 1]
    quantizer.quantizers.0.out_proj.*       [dim, D, 1]

The maps are `weight` (Hugging Face), `weight_v` (weight_norm) or `parametrizations.weight.original1` (SNAC).
Codes are chosen by angle, z_e and rows scaled to norm one, but the rows are stored and returned as they are.
There are no counts: usage needs data.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.layouts.build import build, is_matrix
from vqdoctor.layouts.layout import Layout, Orientation, Specificity, Vocabulary
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import QuantizerView

_TABLE = "codebook.weight"
_WEIGHTS = ("weight", "weight_v", "parametrizations.weight.original1")


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each level."""
    for path in state.owners(_TABLE):
        key = join(path, _TABLE)
        table = state.entries[key]
        if orientation == "dk" or not is_matrix(table):
            continue
        into, out = _map(state, join(path, "in_proj")), _map(state, join(path, "out_proj"))
        if into[:1] == out[1:2] == table.shape[1:] and into[1:2] == out[:1]:
            yield from build(state, name=path, roles={"codebook": key}, lookup="cosine")


def _map(state: StateDict, path: str) -> tuple[int, ...]:
    """Return the shape of the map at that path; () if there is none."""
    weights = (state.get(path, name) for name in _WEIGHTS)
    return next((weight.shape for weight in weights if weight is not None), ())


LAYOUT = Layout(
    name="dac", title="DAC and SNAC", specificity=Specificity.LIBRARY,
    find=find,
    example={
        "quantizer.quantizers.0.in_proj.weight_g": (8, 1, 1),
        "quantizer.quantizers.0.in_proj.weight_v": (8, 1024, 1),
        "quantizer.quantizers.0.out_proj.weight_g": (1024, 1, 1),
        "quantizer.quantizers.0.out_proj.weight_v": (1024, 8, 1),
        "quantizer.quantizers.0.codebook.weight": (1024, 8),
    },
    sees=("quantizer.quantizers.0", 1024, 8),
    words=Vocabulary(
        layer="DacConfig", arguments={"VQ weight": "commitment_loss_weight", "codes": "codebook_size"},
        of="transformers",
    ),
)  # fmt: skip
