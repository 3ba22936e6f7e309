"""Any codebook with EMA counts beside it, under one of the usual names, whose shapes fit.

    quantizer.codebooks.0.weight            [K + 1, D]  RQ-VAE: the last row is padding
    quantizer.codebooks.0.cluster_size_ema  [K]
    quantizer.codebooks.0.embed_ema         [K, D]

    codebook.embeddings [K, D], codebook.N [K], codebook.z_avg [K, D]                      VideoGPT, ESM3
    codebook.embedding [N, K, D], codebook.ema_count [N, K], codebook.ema_weight [N, K, D]  bshall
    quantize.embedding.weight [K, D], quantize.cluster_size [K]                            BEiT-v2, LaVIT

The start of the counts, their smoothing and decay are unknown. The confidence is medium with fitting
sums, else low; low as well where K = D and neither shapes nor sums can tell rows from columns.
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import build
from vqdoctor.layouts.layout import Layout, Orientation, Specificity
from vqdoctor.layouts.orientation import told_by_sums
from vqdoctor.layouts.siblings import COUNTS, is_projected, layer_path, statistics
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import QuantizerView


def find(state: StateDict, orientation: Orientation | None) -> Iterator[QuantizerView]:
    """Yield one view for each module that holds counts, and a codebook that fits them."""
    paths = dict.fromkeys(path for suffix in COUNTS for path in state.owners(suffix))
    claimed: set[str] = set()
    # The outer counts first: BEiT-v2 keeps dead ones beside the codebook and living ones a level up.
    for path in sorted(paths, key=lambda path: path.count(".") if path else -1):
        roles, how = statistics(state, path, orientation)
        told = orientation
        if told is None and how is not None and how.ambiguous and "sums" in roles:
            told = told_by_sums(state.entries[roles["codebook"]], state.entries[roles["sums"]])
            roles, how = statistics(state, path, told)
        if how is not None and roles["codebook"] not in claimed and not is_projected(state, path):
            claimed.add(roles["codebook"])
            sure = "sums" in roles and (not how.ambiguous or told is not None)
            yield from build(
                state,
                name=layer_path(path),
                roles=roles,
                confidence=Confidence.MEDIUM if sure else Confidence.LOW,
                transposed=how.transposed,
                num_codes=how.num_codes,
            )


LAYOUT = Layout(
    name="ema-guess", title="a codebook with fitting EMA counts", specificity=Specificity.EMA,
    find=find,
    example={
        "quantizer.codebooks.0.weight": (2049, 256), "quantizer.codebooks.0.cluster_size_ema": (2048,),
        "quantizer.codebooks.0.embed_ema": (2048, 256),
    },
    sees=("quantizer.codebooks.0", 2048, 256),
)  # fmt: skip
