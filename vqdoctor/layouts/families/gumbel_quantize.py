"""GumbelQuantize of karpathy's deep-vector-quantization and of taming-transformers: a code for each logit.

    quantize.embed.weight  [K, D]
    quantize.proj.weight   [K, C, 1, 1]: the logits, one for each code
    quantize.proj.bias     [K]

A code is chosen by the largest logit, never by its distance. The VQVAEQuantize beside it has a `proj` of its
input, [D, C, 1, 1], and a `data_initialized`: it is none of these. There are no counts: usage needs data.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.layouts.build import build, is_matrix
from vqdoctor.layouts.layout import Layout, Orientation, Specificity
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import QuantizerView

_TABLE = "embed.weight"


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each table with as many logits as codes."""
    for path in state.owners(_TABLE) if orientation != "dk" else ():
        key = join(path, _TABLE)
        table, logits = state.entries[key], state.get(path, "proj.weight")
        if logits is None or not is_matrix(table) or state.get(path, "data_initialized") is not None:
            continue
        if len(logits.shape) == 4 and (logits.shape[0], *logits.shape[2:]) == (table.shape[0], 1, 1):
            yield from build(state, name=path, roles={"codebook": key}, lookup="logits")


LAYOUT = Layout(
    name="gumbel-quantize", title="GumbelQuantize (karpathy, taming)", specificity=Specificity.LIBRARY,
    find=find,
    example={
        "quantize.proj.weight": (8192, 256, 1, 1), "quantize.proj.bias": (8192,),
        "quantize.embed.weight": (8192, 256),
    },
    sees=("quantize", 8192, 256),
)  # fmt: skip
