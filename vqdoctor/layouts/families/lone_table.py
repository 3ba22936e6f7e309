"""The only matrix of a module that is named after quantization, whatever its own name is: a guess.

    quant.emb.weight    [K, D]  home-made
    rvq.levels.0.book   [K, D]  home-made

A table of codes by its name is `path-guess`. Linear maps (a bias beside it, or a name of one) and modules
with any other matrix or kernel are passed over. The confidence is low.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import build, is_matrix
from vqdoctor.layouts.layout import Layout, Orientation, Specificity
from vqdoctor.layouts.orientation import told_by_widths
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.layouts.words import TABLES, foreign_word, is_map, is_projection, near_vq

_LEAST_CODES = 2


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each module near a quantizer's name that holds one matrix and no other."""
    inside: Counter[str] = Counter()
    for name, tensor in state.entries.items():
        if len(tensor.shape) > 1:
            tokens = name.split(".")
            inside.update(".".join(tokens[:end]) for end in range(1, len(tokens)))
    for name, tensor in state.entries.items():
        tokens = name.split(".")
        table = tokens[-2:-1] if tokens[-1] == "weight" else tokens[-1:]
        layer = tokens[: -2 if tokens[-1] == "weight" else -1]
        path = ".".join(layer)
        if not layer or inside[path] != 1 or not is_matrix(tensor) or tensor.shape[0] < _LEAST_CODES:
            continue
        named = {*table} & {*TABLES} or is_projection(table[0]) or is_map(table[0]) or table[0].isdigit()
        if named or foreign_word(tokens) or not near_vq(layer, reach=1):
            continue
        if f"{path}.{table[0]}.bias" not in state.entries and f"{path}.bias" not in state.entries:
            yield from build(
                state,
                name=path,
                roles={"codebook": name},
                confidence=Confidence.LOW,
                transposed=(orientation or told_by_widths(state, name)) == "dk",
            )


LAYOUT = Layout(
    name="lone-table", title="the only matrix of a module named after quantization",
    specificity=Specificity.GUESS,
    find=find,
    example={
        "encoder.0.weight": (32, 3, 4, 4), "quant.emb.weight": (512, 32), "decoder.0.weight": (32, 3, 4, 4),
    },
    sees=("quant", 512, 32),
)  # fmt: skip
