"""What a probe is: a function from its room's context to evidence, or to a reason for none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from vqdoctor.core.evidence import Evidence, Unavailable

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class Probe(Generic[C]):
    """One probe. One file defines one, as `PROBE`.

    Attributes:
        kinds: the kinds of evidence that it yields.
        measure: context in, evidence out: one item, or an `Unavailable`, for every kind and layer.
    """

    kinds: tuple[type[Evidence], ...]
    measure: Callable[[C], Iterable[Evidence | Unavailable]]
