"""The perplexity that EMA counts claim, beside that of data."""

from __future__ import annotations

from vqdoctor.core.evidence import CountsUsage
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes.file import usage
from vqdoctor.probes.file._context import FileContext, each_layer


def measure(context: FileContext, view: QuantizerView) -> CountsUsage:
    """Return a layer's perplexity by its EMA counts."""
    found = usage.by_counts(context, view)
    return CountsUsage(
        source="checkpoint",
        sample_size=found.num_codes,
        perplexity=found.perplexity,
        low=found.perplexity_low,
        high=found.perplexity_high,
    )


PROBE = each_layer(CountsUsage, measure)
