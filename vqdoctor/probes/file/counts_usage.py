"""The perplexity that EMA counts claim, beside that of data."""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.evidence import CountsUsage, Evidence, Unavailable, Usage
from vqdoctor.probes.file import usage
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Probe


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield every layer's perplexity by its counts, or why they do not tell it."""
    for found in usage.measure(context):
        if isinstance(found, Usage):
            yield CountsUsage(
                layer=found.layer,
                source="checkpoint",
                sample_size=found.num_codes,
                perplexity=found.perplexity,
                low=found.perplexity_low,
                high=found.perplexity_high,
            )
        elif isinstance(found, Unavailable):
            yield Unavailable(
                kind=CountsUsage.kind, layer=found.layer, source="checkpoint", reason=found.reason
            )


PROBE = Probe(kinds=(CountsUsage,), measure=measure)
