"""The perplexity that EMA counts claim, beside that of data."""

from __future__ import annotations

from vqdoctor.core.evidence import CountsUsage
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes.file import usage
from vqdoctor.probes.file._context import FileContext, each_layer
from vqdoctor.probes.probe import Missing


def measure(context: FileContext, view: QuantizerView) -> CountsUsage:
    """Return a layer's perplexity by its EMA counts.

    Raises:
        Missing: where they do not tell it; no data would.
    """
    try:
        found = usage.by_counts(context, view)
    except Missing as error:
        raise Missing(error.reason) from error
    return CountsUsage(
        source="checkpoint",
        sample_size=found.num_codes,
        perplexity=found.perplexity,
        low=found.perplexity_low,
        high=found.perplexity_high,
    )


PROBE = each_layer(CountsUsage, measure)
