"""Which codes the model chooses in eval mode, on all splits together."""

from __future__ import annotations

import numpy as np

from vqdoctor.capture.masks import MASKED
from vqdoctor.capture.reader import Codes
from vqdoctor.core.evidence import Usage
from vqdoctor.probes._usage import usage_from_indices
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer


def measure(context: ModelContext) -> dict[str, Usage]:
    """Return the usage of every layer."""
    by_split = [(context.codes(split), context.rows_of(split)) for split in context.own_splits]
    measured = {}
    for view in context.views:
        parts = [(codes[view.name], rows[view.name]) for codes, rows in by_split if view.name in codes]
        chosen, samples = _together(parts)
        if len(chosen):
            measured[view.name] = usage_from_indices(
                chosen,
                view.num_codes,
                layer=view.name,
                groups=samples,
                histogram=context.histogram,
                seed=context.seed,
            ).replace(implicit=not view.keys)
    return measured


def _together(parts: list[tuple[Codes, Codes]]) -> tuple[Codes, Codes]:
    """Return all codes that are not masked, and for each the sample that it comes from."""
    chosen, samples, first = [], [], 0
    for codes, row_samples in parts:
        of = np.repeat(first + row_samples, codes.shape[1])
        kept = codes.ravel() != MASKED
        chosen.append(codes.ravel()[kept])
        samples.append(of[kept])
        first += int(row_samples[-1]) + 1
    none = np.zeros(0, dtype=np.int64)
    return np.concatenate([none, *chosen]), np.concatenate([none, *samples])


WHY_NOT = "the layer gives no indices, and z_e has another dimension"
PROBE = each_layer(Usage, measure, WHY_NOT, mode="eval", by_gradient=False, needs_codebook=False)
