"""The ranges of a saved report's figures: one that was written by hand can say what nobody can measure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import TaskMetrics, Usage
from vqdoctor.core.report import Report

_ROUNDING = 1e-6
"""Share by which two figures that are equal may differ after arithmetic in floats."""


def require_possible(report: Report) -> None:
    """Make sure that every figure that a gate judges by lies where it can lie.

    Raises:
        UserError: if one does not; the message names it.
    """
    codes = {layer.name: layer.num_codes for layer in report.layers}
    for evidence in report.evidence:
        wrong: list[str] = []
        if isinstance(evidence, Usage):
            wrong = list(_impossible_usage(evidence, codes.get(evidence.layer or "", evidence.num_codes)))
        elif isinstance(evidence, TaskMetrics):
            wrong = list(_impossible_metrics(evidence))
        if wrong:
            on = f" on {evidence.layer}" if evidence.layer else ""
            what = f"the report is damaged: its {evidence.kind}{on} has an impossible {wrong[0]}"
            raise UserError(what, "write the report again")


def _impossible_usage(usage: Usage, codes: int) -> Iterator[str]:
    most = usage.num_codes
    if most != codes:
        yield f"num_codes of {most:,}, for a layer of {codes:,}"
    if not 0 <= usage.active <= most or not 0 <= usage.used <= most:
        yield f"number of codes in use ({usage.used:,} used, {usage.active:,} active, of {most:,})"
    if not _ordered(0, usage.perplexity_low, usage.perplexity, usage.perplexity_high, most):
        low, value, high = usage.perplexity_low, usage.perplexity, usage.perplexity_high
        yield f"perplexity ({value:g} in [{low:g}, {high:g}], of {most:,} codes)"
    if abs(usage.share * most - usage.used) > _ROUNDING * most:
        yield f"share of used codes ({usage.share:g}, with {usage.used:,} of {most:,})"
    if not _ordered(0, usage.max_share, 1) or not _ordered(0, usage.unseen_mass, 1):
        yield f"share of the most used code ({usage.max_share:g}) or of unseen ones ({usage.unseen_mass:g})"
    sizes = (usage.sample_size, usage.effective_size or 0, usage.window or 0, usage.groups or 0)
    if min(sizes) < 0 or any(count < 0 for count in (*usage.count_quantiles, *usage.histogram)):
        yield "negative count"
    if usage.source == "batch" and (usage.effective_size or 0) > usage.sample_size * (1 + _ROUNDING):
        yield f"effective_size of {usage.effective_size:g}, of {usage.sample_size:,} vectors"


def _impossible_metrics(told: TaskMetrics) -> Iterator[str]:
    for name in ("accuracy", "bypass_accuracy", "shuffled_accuracy", "mean_code_accuracy", "chance_accuracy"):
        value = getattr(told, name)
        if value is not None and not _ordered(0, value, 1):
            yield f"{name} of {value:g}"
    ends = [end for end in (told.ece_low, told.ece, told.ece_high) if end is not None]
    if not _ordered(0, *ends, 1):
        yield f"ece ({', '.join(f'{end:g}' for end in ends)})"
    if told.sample_size < 0:
        yield "negative count"


def _ordered(*values: float) -> bool:
    """Whether each value is at least the one before it, except for rounding."""
    return all(a <= b + _ROUNDING * max(abs(a), abs(b)) for a, b in pairwise(values))
