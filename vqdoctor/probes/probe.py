"""A probe: a function from its room's context to evidence, or to the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Generic, Literal, Protocol, TypeVar

from vqdoctor.core.evidence import Evidence, Source, Unavailable
from vqdoctor.core.frozen import frozen
from vqdoctor.layouts.view import QuantizerView

C = TypeVar("C")
Mode = Literal["train", "eval", "both"]


class Missing(Exception):
    """Evidence cannot be measured here; carries the reason, and the flag that would help."""

    def __init__(self, reason: str, hint: str = "") -> None:
        self.reason, self.hint = reason, hint
        super().__init__(reason)

    def gap(self, kind: type[Evidence], layer: str | None, source: Source) -> Unavailable:
        """Return the `Unavailable` of that kind on that layer."""
        return Unavailable(kind=kind.kind, layer=layer, source=source, reason=self.reason, hint=self.hint)


@frozen
class Probe(Generic[C]):
    """One probe. One file defines one, as `PROBE`.

    Attributes:
        kinds: the kinds of evidence that it yields.
        measure: context in, evidence out: one item, or an `Unavailable`, for every kind and layer.
        mode: the mode in which it runs the model, once the layers are located; None where it runs nothing.
        needs_codebook: whether it asks for a layer's codebook; else it can look at a layer without one.
        needs_vq_loss: whether it judges the VQ loss, so that it must know which loss that is.
        of_model: whether it measures the model as a whole, and not layer by layer.
    """

    kinds: tuple[type[Evidence], ...]
    measure: Callable[[C], Iterable[Evidence | Unavailable]]
    mode: Mode | None = None
    needs_codebook: bool = True
    needs_vq_loss: bool = False
    of_model: bool = False


class _Layers(Protocol):
    @property
    def views(self) -> Sequence[QuantizerView]: ...


MOST_CODES = 1 << 19
"""The largest codebooks in use have 2^18 codes (MAGVIT-v2, Open-MAGVIT2, IBQ)."""
MOST_DIMENSIONS = 1 << 16
"""Far above the widest hidden layers, of 2^14."""
MOST_OF_BOTH = 1536
"""Of codes and dimensions the fewer. The largest in use is 1,280 (GLM-4-Voice, 16,384 codes); their
directions cost its cube: 0.25 s of CPU at this limit, with one thread."""
L = TypeVar("L", bound=_Layers)


def each_layer(
    kind: type[Evidence], source: Source, measure: Callable[[L, QuantizerView], Evidence]
) -> Probe[L]:
    """Return the probe that measures one layer after the other, and names the layer in the evidence.

    Args:
        kind: the kind of evidence.
        source: where it is looked for.
        measure: context and layer in, evidence out; it raises `Missing` where there is none.
    """

    @wraps(measure)
    def measure_each(context: L) -> Iterator[Evidence | Unavailable]:
        for view in context.views:
            try:
                _refuse_huge(view)
                yield measure(context, view).replace(layer=view.name)
            except Missing as missing:
                yield missing.gap(kind, view.name, source)

    return Probe(kinds=(kind,), measure=measure_each)


def _refuse_huge(view: QuantizerView) -> None:
    """Refuse a table that is larger than any codebook: what the probes compute grows faster than it.

    Raises:
        Missing: if it is.
    """
    codes, dim = view.num_codes, view.dim
    if codes > MOST_CODES or dim > MOST_DIMENSIONS or min(codes, dim) > MOST_OF_BOTH:
        raise Missing(f"its table of {codes:,} × {dim:,} is larger than any codebook")
