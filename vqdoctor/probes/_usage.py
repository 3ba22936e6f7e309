"""From chosen codes to `Usage`: the same for a dump and for a model that is run."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vqdoctor.core.evidence import ACTIVE_SHARE, Source, Usage
from vqdoctor.metrics.counts import GroupedCounts
from vqdoctor.metrics.entropy import plug_in_entropy
from vqdoctor.metrics.expectation import expected_active, expected_used
from vqdoctor.metrics.geometry import histogram_quantiles
from vqdoctor.metrics.perplexity import estimate
from vqdoctor.vq.outlier import others


def usage_from_indices(
    indices: ArrayLike,
    num_codes: int,
    *,
    layer: str,
    groups: ArrayLike | None = None,
    source: Source = "batch",
    histogram: bool = False,
    seed: int = 0,
) -> Usage:
    """Return the usage that `indices` [N] show of a codebook of `num_codes`.

    `groups` [N] says which sample (image, clip) each vector comes from; None where unknown.

    Raises:
        ValueError: if there is no index, or one is outside 0 … num_codes − 1.
    """
    table = GroupedCounts.from_indices(indices, num_codes, groups)
    counts, vectors = table.totals, table.vectors
    perplexity = estimate(table, seed)
    used = int(np.count_nonzero(counts))
    rest = others(counts.astype(np.float64))
    shared = counts if rest is None else rest
    return Usage(
        layer=layer,
        source=source,
        sample_size=vectors,
        num_codes=num_codes,
        used=used,
        active=int(np.sum(counts > ACTIVE_SHARE * shared.sum() / len(shared))),
        expected_used=expected_used(num_codes, vectors),
        expected_active=expected_active(num_codes, int(shared.sum()), ACTIVE_SHARE),
        share=used / num_codes,
        perplexity=perplexity.value,
        perplexity_low=perplexity.low,
        perplexity_high=perplexity.high,
        plug_in_perplexity=perplexity.plug_in,
        estimator="grassberger",
        max_share=float(counts.max() / vectors),
        rest_perplexity=None if rest is None else float(np.exp(plug_in_entropy(rest))),
        unseen_mass=table.unseen_mass(),
        groups=table.samples,
        effective_size=perplexity.effective_size,
        active_share=ACTIVE_SHARE,
        count_quantiles=histogram_quantiles(counts),
        histogram=tuple(counts.astype(np.float64).tolist()) if histogram else (),
    )
