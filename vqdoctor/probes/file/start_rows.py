"""Codes that still are as a constructor drew them, by the values and by the file's signs of use."""

from __future__ import annotations

from vqdoctor.core.evidence import StartRows
from vqdoctor.layouts.live_rows import chosen_lately
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import Mask
from vqdoctor.metrics.start import as_constructed
from vqdoctor.probes.file._context import FileContext, each_layer
from vqdoctor.probes.file.optimizer_memory import untouched_rows
from vqdoctor.saved.placement import codebook_slot


def measure(context: FileContext, view: QuantizerView) -> StartRows:
    """Return how much of a layer's codebook was left as it was drawn."""
    unused = _unused(context, view)
    rows, start = as_constructed(view.codebook, unused)
    return StartRows(
        source="checkpoint",
        sample_size=view.num_codes,
        rows=int(rows.sum()),
        start=start,
        unused=None if unused is None else int(unused.sum()),
        frozen=view.frozen or view.derived,
        by_logits=view.lookup == "logits",
    )


def _unused(context: FileContext, view: QuantizerView) -> Mask | None:
    """Return the codes that the counts or the optimizer show to be unused; None where neither shows it."""
    chosen = chosen_lately(view.counts)
    if chosen is not None:
        return ~chosen
    slot = codebook_slot(context.saved, view, context.views)
    return None if slot is None else untouched_rows(slot, view)


PROBE = each_layer(StartRows, measure)
