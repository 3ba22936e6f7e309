"""What a probe is: a function from its room's context to evidence, or to a reason for none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from vqdoctor.core.evidence import Evidence, Unavailable

C = TypeVar("C")
Mode = Literal["train", "eval", "both"]


@dataclass(frozen=True, kw_only=True)
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
