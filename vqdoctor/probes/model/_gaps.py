"""An answer for every layer: what was measured, or why there is nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vqdoctor.core.evidence import Evidence, Unavailable
from vqdoctor.probes.model._context import ModelContext


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
        else:
            located = view.name in context.layers
            yield Unavailable(
                kind=kind.kind,
                layer=view.name,
                source="batch",
                reason=otherwise
                if located and otherwise
                else "no module around this codebook maps a float input to a float output of its shape",
                hint=hint if located else "",
            )
