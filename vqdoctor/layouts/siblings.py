"""The neighbours of a table of codes: its EMA statistics, or a projection that computes the codes from it."""

from __future__ import annotations

from vqdoctor.layouts.build import Fit, fit, is_float, is_matrix
from vqdoctor.layouts.layout import Orientation
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.words import TABLES

COUNTS = (
    "cluster_size", "cluster_usage", "cluster_size_ema", "ema_cluster_size", "_ema_cluster_size",
    "_ema_count", "ema_count", "ema_counts", "embed_prob", "N", "ema_cluster_size.average",
)  # fmt: skip
_SUMS = (
    "embed_avg", "embed_ema", "embed_sum", "embedding_sum", "ema_embedding_sum", "ema_embed", "ema_w",
    "_ema_w", "ema_weight", "_ema_weight", "ema_embed_sum", "ema_cluster_sum", "ema_sum", "ema_sums",
    "cluster_sum", "z_avg", "codes_avg", "ema_embed_avg", "ema_dw.average",
)  # fmt: skip
_CODES = (
    "embed", "embeddings", "embedding", "codebook", "codes", "centroids", "cb", "CB", "w_embedding", "weight",
    "_embedding", "embed.weight", "embedding.weight", "_embedding.weight", "codebook.weight", "w.weight",
    "cb.weight", "w_embedding.weight",
)  # fmt: skip
_PROJECTIONS = ("embedding_proj", "code_transform", "codebook_projection", "proj")


def is_projected(state: StateDict, path: str) -> bool:
    """Whether a map of the table's rows lies under that path, as in SimVQ, OptVQ and VQGAN-LC.

    Then the table's rows are not the codes, and must not be judged as such.
    """
    return any(is_matrix(state.get(path, f"{name}.weight")) for name in _PROJECTIONS)


def statistics(
    state: StateDict, path: str, orientation: Orientation | None = None, codebook: str | None = None
) -> tuple[dict[str, str], Fit | None]:
    """Return the roles that the entries at that path play for a codebook, and how its counts fit.

    Without a name for the codebook the usual ones are tried. The fit is None where it has no counts.
    """
    for code in (codebook,) if codebook else (join(path, suffix) for suffix in _CODES):
        table = state.entries.get(code)
        if table is None or not is_float(table):
            continue
        for suffix in COUNTS:
            counts = state.get(path, suffix)
            how = fit(table.shape, counts.shape, orientation) if counts is not None else None
            if how is not None:
                roles = {"codebook": code, "counts": join(path, suffix)}
                return roles | _sums(state, path, how, table.shape), how
    return {}, None


def layer_path(path: str) -> str:
    """Return the path of the VQ layer whose table lies at `path`: without trailing names of tables.

    A table at the root keeps its name, because a layer needs one.
    """
    tokens = path.split(".")
    while len(tokens) > 1 and tokens[-1] in TABLES:
        tokens.pop()
    return ".".join(tokens)


def _sums(state: StateDict, path: str, how: Fit, shape: tuple[int, ...]) -> dict[str, str]:
    """Return the sums' role; they have the codebook's shape, or that without the padding row."""
    shapes = {shape} if how.transposed else {(*shape[:-2], how.num_codes, shape[-1])}
    for suffix in _SUMS:
        tensor = state.get(path, suffix)
        if tensor is not None and tensor.shape in shapes:
            return {"sums": join(path, suffix)}
    return {}
