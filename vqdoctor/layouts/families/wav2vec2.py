"""The Gumbel quantizer of wav2vec 2.0, in fairseq and in Hugging Face: G groups of K codes.

    quantizer.vars                [1, G·K, D]; [1, K, D] if the groups share one table    fairseq
    quantizer.codevectors         [1, G·K, D]                                        Hugging Face
    quantizer.weight_proj.weight  [G·K, dim]; with more depth `weight_proj.{n}.weight`
    quantizer.weight_proj.bias    [G·K]
    project_q.weight              [final, G·D], beside the quantizer; or `project_inp`

One view for each group; one alone where they share a table. The shapes of the quantizer do
not show G, the map behind it does. Without such a map all rows are shown as one codebook, with low
confidence. A code is chosen by `weight_proj`'s largest output, never by its distance. There are no counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import build, is_float
from vqdoctor.layouts.layout import Layout, Orientation, Specificity, Vocabulary
from vqdoctor.layouts.place import Place
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import QuantizerView

_TABLES = ("vars", "codevectors")
_LOGITS = ("weight_proj.weight", *(f"weight_proj.{depth}.weight" for depth in range(1, 5)))
_BEHIND = ("project_q.weight", "project_inp.weight")


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each group of each quantizer."""
    for suffix in _TABLES if orientation != "dk" else ():
        for path in state.owners(suffix):
            table, logits = state.entries[join(path, suffix)], _logits(state, path)
            is_table = len(table.shape) == 3 and table.shape[0] == 1 and min(table.shape) > 0
            if not logits or not is_table or not is_float(table) or logits % table.shape[1]:
                continue
            groups = _groups(state, path, table.shape, logits)
            codes = table.shape[1] // (groups or 1)
            yield from build(
                state,
                name=path,
                roles={"codebook": join(path, suffix)},
                confidence=Confidence.HIGH if groups else Confidence.LOW,
                num_codes=codes,
                lookup="logits",
                places=[Place(head=0, first=g * codes, rows=codes) for g in range(groups or 1)],
            )


def _logits(state: StateDict, path: str) -> int:
    """Return G · K, the outputs of the last layer of `weight_proj`; 0 if there is none."""
    shapes = [weight.shape for name in _LOGITS if (weight := state.get(path, name)) is not None]
    return shapes[-1][0] if shapes and len(shapes[-1]) == 2 else 0


def _groups(state: StateDict, path: str, shape: tuple[int, ...], logits: int) -> int | None:
    """Return in how many groups the table's rows fall: 1 if all share it, None if that is unknown."""
    _, rows, dim = shape
    if logits > rows:
        return 1
    parent = path.rpartition(".")[0]
    for name in _BEHIND:
        weight = state.get(parent, name)
        if weight is not None and len(weight.shape) == 2:
            groups, rest = divmod(weight.shape[1], dim)
            return groups if groups and not rest and rows % groups == 0 else None
    return None


LAYOUT = Layout(
    name="wav2vec2", title="the Gumbel quantizer of wav2vec 2.0", specificity=Specificity.LIBRARY,
    find=find,
    example={
        "quantizer.vars": (1, 320, 128), "quantizer.weight_proj.weight": (640, 512),
        "quantizer.weight_proj.bias": (640,), "project_q.weight": (256, 256),
    },
    sees=("quantizer", 320, 128),
    words=Vocabulary(
        layer="Wav2Vec2Config",
        arguments={"codes": "num_codevectors_per_group", "entropy": "diversity_loss_weight"},
        of="transformers",
    ),
)  # fmt: skip
