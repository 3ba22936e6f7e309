"""QINCo of facebookresearch: a residual quantizer whose codes a network makes anew for every vector.

    codebook0.weight           [K, D]   the first codebook, looked up as it is
    step1.codebook.weight      [K, D]   seeds; step1.MLPconcat.weight [D, 2 D] and what follows make codes
    steps.0.codebook.weight    [K, D]   the same in the second version, whose first step is looked up as it is
    steps.1.codebook.weight    [K, D]   seeds; steps.1.concat.mlp.weight [E, E + D]

The codes of every other step are outputs of its network, of a seed and of what the steps before it gave. No
table of them is stored: a seed may stay as it was drawn, and no vector is near it. Huijben et al. 2024,
arXiv:2401.14732.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vqdoctor.layouts.build import build, is_matrix
from vqdoctor.layouts.layout import Layout, Orientation, Specificity
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import QuantizerView

_SEEDS = "codebook.weight"
_NETWORKS = ("MLPconcat.weight", "MLPconcat.0.weight", "concat.mlp.weight")
"""The map of a seed and the reconstruction: of QINCo, of its low-rank variant, and of the second version."""
_FIRST = ("codebook0", "steps.0.codebook")


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield the first codebook of each chain, and the seeds of each of its steps."""
    models: set[str] = set()
    steps = []
    for path in state.owners(_SEEDS):
        network = next((found for name in _NETWORKS if (found := state.get(path, name)) is not None), None)
        table = state.get(path, _SEEDS)
        if network is None or not is_matrix(table) or not is_matrix(network):
            continue
        steps.append(path)
        models.add(path.rpartition("steps.")[0].rstrip(".") if "steps." in path else path.rpartition(".")[0])
    for model in sorted(models):
        for name in _FIRST:
            if is_matrix(state.get(model, f"{name}.weight")):
                path = join(model, name)
                yield from build(
                    state, name=path.removesuffix(".codebook"), roles={"codebook": f"{path}.weight"}
                )
    for path in steps:
        for view in build(state, name=path, roles={"codebook": join(path, _SEEDS)}, lookup="logits"):
            yield replace(view, frozen=True)


LAYOUT = Layout(
    name="qinco", title="QINCo of facebookresearch", specificity=Specificity.VARIANT,
    find=find,
    example={
        "step1.codebook.weight": (256, 32), "step1.MLPconcat.weight": (32, 64), "step1.MLPconcat.bias": (32,),
        "step1.residual_block0.0.weight": (64, 32), "step1.residual_block0.2.weight": (32, 64),
    },
    sees=("step1", 256, 32),
)  # fmt: skip
