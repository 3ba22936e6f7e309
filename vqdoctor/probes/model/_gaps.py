"""An answer for every layer: what was measured, or why there is nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vqdoctor.capture.locate import NOT_CALLED
from vqdoctor.core.evidence import Evidence, Unavailable
from vqdoctor.probes.model._context import ModelContext


def by_layer(
    context: ModelContext,
    kind: type[Evidence],
    measured: Mapping[str, Evidence],
    otherwise: str = "",
    hint: str = "",
    *,
    by_gradient: bool = True,
) -> Iterator[Evidence | Unavailable]:
    """Yield each layer's evidence, or an `Unavailable` that says why there is none.

    Args:
        context: the context.
        kind: the kind of evidence.
        measured: layer to its evidence.
        otherwise: why there is none where the layer is seen at work.
        hint: what would make it available there.
        by_gradient: whether it is measured by gradients, whose own gap then is the better reason.
    """
    for view in context.views:
        if view.name in measured:
            yield measured[view.name]
            continue
        layer = context.layers[view.name]
        here = otherwise if layer.maps else ""
        first, second = (layer.gap, here) if by_gradient else (here, layer.gap)
        yield Unavailable(
            kind=kind.kind,
            layer=view.name,
            source="batch",
            reason=first or second or NOT_CALLED,
            hint=hint if layer.maps and not layer.gap else "",
        )
