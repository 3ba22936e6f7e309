"""An answer for every layer: what was measured, or why there is nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vqdoctor.capture.located import NO_MODULE, NOT_CALLED
from vqdoctor.core.evidence import DataMatch, Evidence, PositionInformation, Unavailable, Usage
from vqdoctor.probes.model._context import ModelContext

IN_EVAL_MODE = (Usage, DataMatch, PositionInformation)
"""What is seen without any gradient, and so for other reasons not seen."""


def by_layer(
    context: ModelContext,
    kind: type[Evidence],
    measured: Mapping[str, Evidence],
    otherwise: str = "",
    hint: str = "",
) -> Iterator[Evidence | Unavailable]:
    """Yield each layer's evidence, or an `Unavailable` that says why there is none."""
    for view in context.views:
        if view.name in measured:
            yield measured[view.name]
            continue
        located = view.name in context.layers
        otherwise_here = otherwise if located else ""
        gap = context.gap(view.name)
        first, second = (otherwise_here, gap) if kind in IN_EVAL_MODE else (gap, otherwise_here)
        yield Unavailable(
            kind=kind.kind,
            layer=view.name,
            source="batch",
            reason=first or second or (NOT_CALLED if located else NO_MODULE),
            hint=hint if located and not gap else "",
        )
