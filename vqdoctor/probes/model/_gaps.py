"""An answer for every layer: its evidence, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps

from vqdoctor.capture.locate import NOT_CALLED
from vqdoctor.core.evidence import Evidence, Unavailable
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.probe import Missing, Mode, Probe


def each_layer(
    kind: type[Evidence],
    measure: Callable[[ModelContext], Mapping[str, Evidence | Missing]],
    otherwise: str = "",
    *,
    mode: Mode | None = None,
    by_gradient: bool = True,
    needs_codebook: bool = True,
    needs_vq_loss: bool = False,
) -> Probe[ModelContext]:
    """Return the probe that answers for every layer of a model; see `by_layer` and `Probe`.

    Args:
        kind: the kind of evidence.
        measure: context in, layer to its evidence out, or to the reason why this layer has none; it raises
            `Missing` where no layer has any.
        otherwise: why a layer has none although it is seen at work.
        mode: the mode in which it runs the model; None where it does not run it.
        by_gradient: whether it measures by gradients.
        needs_codebook: whether it asks for a layer's codebook.
        needs_vq_loss: whether it judges the VQ loss.
    """

    @wraps(measure)
    def measure_each(context: ModelContext) -> Iterator[Evidence | Unavailable]:
        try:
            measured, reason, hint = measure(context), otherwise, ""
        except Missing as missing:
            measured, reason, hint = {}, missing.reason, missing.hint
        yield from by_layer(context, kind, measured, reason, hint, by_gradient=by_gradient)

    return Probe(
        kinds=(kind,),
        measure=measure_each,
        mode=mode,
        needs_codebook=needs_codebook,
        needs_vq_loss=needs_vq_loss,
    )


def of_model(
    kind: type[Evidence], measure: Callable[[ModelContext], Evidence], *, mode: Mode | None
) -> Probe[ModelContext]:
    """Return the probe that measures a model as a whole; `measure` raises `Missing` where it cannot."""

    @wraps(measure)
    def measure_once(context: ModelContext) -> Iterator[Evidence | Unavailable]:
        try:
            yield measure(context)
        except Missing as missing:
            yield missing.gap(kind, None, "batch")

    return Probe(kinds=(kind,), measure=measure_once, mode=mode, needs_codebook=False, of_model=True)


def by_layer(
    context: ModelContext,
    kind: type[Evidence],
    measured: Mapping[str, Evidence | Missing],
    otherwise: str = "",
    hint: str = "",
    *,
    by_gradient: bool = True,
) -> Iterator[Evidence | Unavailable]:
    """Yield each layer's evidence, or an `Unavailable` with the reason why there is none.

    Args:
        context: the context.
        kind: the kind of evidence.
        measured: layer to its evidence, whose field `layer` is filled in here, or to a reason of its own.
        otherwise: why there is none where the layer is seen at work.
        hint: the flag that would make it available there.
        by_gradient: whether it is measured by gradients, whose own gap then is the better reason.
    """
    for name, layer in context.layers.items():
        found = measured.get(name)
        if isinstance(found, Evidence):
            yield found.replace(layer=name)
            continue
        here = otherwise if layer.maps else ""
        first, second = (layer.gap, here) if by_gradient else (here, layer.gap)
        why = Missing(first or second or NOT_CALLED, hint if layer.maps and not layer.gap else "")
        yield (found or why).gap(kind, name, "batch")
