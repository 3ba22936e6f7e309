"""RQ-VAE-Recommender's residual levels, plain embeddings in a list with an everyday name.

    layers.{q}.embedding.weight   [K, D]
    layers.{q}.out_proj.0.weight  [D, D]  with sim_vq: a map of the rows

`layers.N.embedding.weight` could be anything. So it counts only at the top of a model with an encoder and a
decoder beside it, where all that lies in the list is such a level, and all have one shape. A level with a map
is left to the model: its rows are not its codes.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import build, is_matrix
from vqdoctor.layouts.layout import Layout, Orientation, Specificity
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import QuantizerView

_TABLE = ".embedding.weight"


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each level, where the list holds levels alone."""
    inside = [name for name in state.entries if name.startswith("layers.")]
    tables = {name.removesuffix(_TABLE): state.entries[name] for name in inside if name.endswith(_TABLE)}
    alike = len({table.shape for table in tables.values()}) == 1 and all(map(is_matrix, tables.values()))
    around = {name.partition(".")[0] for name in state.entries}
    if orientation != "dk" and alike and len(tables) == len(inside) and {"encoder", "decoder"} <= around:
        for path in tables:
            yield from build(
                state, name=path, roles={"codebook": path + _TABLE}, confidence=Confidence.MEDIUM
            )


LAYOUT = Layout(
    name="rq-vae-recommender", title="residual levels of RQ-VAE-Recommender", specificity=Specificity.PATH,
    find=find,
    example={
        "encoder.mlp.0.weight": (512, 768), "layers.0.embedding.weight": (256, 32),
        "decoder.mlp.0.weight": (512, 32),
    },
    sees=("layers.0", 256, 32),
)  # fmt: skip
