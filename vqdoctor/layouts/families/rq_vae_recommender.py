"""The levels of RQ-VAE-Recommender: a list `layers` of modules that hold an `nn.Embedding` and nothing else.

    layers.0.embedding.weight   [K, D]
    layers.1.embedding.weight   [K, D]

Other models use the name of a level too, so the whole is the sign: beside an encoder and a decoder, levels
of one shape, and no other tensor in them. With `sim_vq` a map `out_proj` lies behind the table, whose rows
are not the codes then.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import build, is_matrix
from vqdoctor.layouts.layout import Layout, Orientation, Specificity
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import QuantizerView

_LEVEL = re.compile(r"^(?P<list>(?:.+\.)?layers)\.(?P<level>\d+)\.(?P<rest>.+)$")
_TABLE = "embedding.weight"


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each level of a list in which every module is a table of one shape."""
    lists: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in state.entries:
        if found := _LEVEL.match(name):
            lists[found["list"]][found["level"]].append(found["rest"])
    parts = {name.partition(".")[0] for name in state.entries}
    for path, levels in lists.items() if {"encoder", "decoder"} <= parts else ():
        tables = [f"{path}.{level}.{_TABLE}" for level in levels]
        if any(rest != [_TABLE] for rest in levels.values()):
            continue
        shapes = {state.entries[table].shape for table in tables}
        if len(shapes) > 1 or not is_matrix(state.entries[tables[0]]):
            continue
        for table in tables:
            yield from build(
                state,
                name=table.removesuffix(f".{_TABLE}"),
                roles={"codebook": table},
                confidence=Confidence.MEDIUM,
                transposed=orientation == "dk",
            )


LAYOUT = Layout(
    name="rq-vae-recommender", title="a list of bare embeddings (RQ-VAE-Recommender)",
    specificity=Specificity.PATH,
    find=find,
    example={
        "encoder.mlp.0.weight": (512, 768), "layers.0.embedding.weight": (256, 32),
        "decoder.mlp.0.weight": (128, 32),
    },
    sees=("layers.0", 256, 32),
)  # fmt: skip
