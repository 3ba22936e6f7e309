"""From a trace to evidence: each layer over its whole training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vqdoctor.core.evidence import Course, Evidence, Unavailable
from vqdoctor.core.trace import RunTrace

MOST = 256
"""Intervals that are listed; the checks look at the whole course, which so many show as well."""
NO_TRACE = "no trace of the training was given"


def courses(trace: RunTrace | None, layers: Sequence[str]) -> Iterator[Evidence | Unavailable]:
    """Yield the course of each layer, or why there is none."""
    for layer in layers:
        rows = [] if trace is None else trace.of(layer)
        known = [row for row in rows if row.perplexity is not None and row.active is not None]
        if not known:
            reason = NO_TRACE if trace is None else "the trace does not hold the usage of the layer"
            yield Unavailable(
                kind=Course.kind, layer=layer, source="trace", reason=reason, hint="--trace run.vqtrace.jsonl"
            )
            continue
        chosen = np.linspace(0, len(known) - 1, min(MOST, len(known))).round().astype(int)
        revived = np.cumsum([row.revived or 0 for row in known])[chosen]
        kept = [known[i] for i in chosen]
        named = {named.name: named for named in trace.start.layers} if trace else {}
        yield Course(
            layer=layer,
            source="trace",
            sample_size=len(kept),
            num_codes=named[layer].num_codes,
            steps=tuple(row.step for row in kept),
            perplexity=tuple(row.perplexity or 0.0 for row in kept),
            active=tuple(row.active or 0 for row in kept),
            revived=tuple(np.diff(revived, prepend=0).tolist()),
            z_e_norm=tuple(row.z_e_norm or 0.0 for row in kept),
            code_norm=tuple(row.code_norm or 0.0 for row in kept),
        )
