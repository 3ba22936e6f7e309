"""Evidence: plain, finite, JSON-able values with a source and a sample size."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self, dataclass_transform

from vqdoctor.core.frozen import frozen

Source = Literal["checkpoint", "batch", "trace"]
SOURCES: tuple[Source, ...] = ("batch", "trace", "checkpoint")
"""Best source first: what was seen on data outranks what a file remembers."""

_PLAIN = {bool, int, float, str, type(None)}


class NotFiniteError(ValueError):
    """A probe measured NaN or infinity, which no evidence may carry."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
@frozen
class Evidence:
    """One thing that a probe measured. Subclasses add the numbers, and are dataclasses by themselves.

    Attributes:
        kind: its name in reports, from the name of the class: `EmaState` is "ema-state".
        layer: the VQ layer that it is about, or None for the whole model or file.
        source: where it was seen.
        sample_size: how many of the things that were counted (each subclass says which).
        HEALTHY: what a healthy layer measures. It follows the class, in the size of a trained Conv2d-VQ
            classifier of 8x8 digits: K = 256, D = 64, 16 positions, 1,797 images, 30 epochs.
    """

    kind: ClassVar[str]
    HEALTHY: ClassVar[Self]
    layer: str | None = None
    source: Source
    sample_size: int

    registry: ClassVar[dict[str, type[Evidence]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make it a frozen dataclass, and register the kind, so that a saved report can be read back."""
        super().__init_subclass__(**kwargs)
        cls.kind = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()
        frozen(cls)
        other = Evidence.registry.setdefault(cls.kind, cls)
        # dataclass(slots=True) and reloads create a class twice; two different ones are a bug.
        if other.__qualname__ != cls.__qualname__:
            raise TypeError(f"evidence kind {cls.kind!r} is taken by {other.__qualname__}")

    def __post_init__(self) -> None:
        """Refuse values that JSON cannot hold.

        Raises:
            NotFiniteError: if a number is NaN or infinite.
            TypeError: if a value is not plain.
        """
        for name, value in vars(self).items():
            items = value if isinstance(value, tuple) else (value,)
            for kind in {*map(type, items)} - _PLAIN:
                raise TypeError(f"{self.kind}.{name}: {kind.__name__} is not a plain value")
            for item in [item for item in items if type(item) is float and not math.isfinite(item)]:
                raise NotFiniteError(f"{name.replace('_', ' ')} is {item}")

    @classmethod
    def healthy(cls, **changes: Any) -> Self:
        """Return the healthy specimen of this kind, with some fields changed."""
        return cls.HEALTHY.replace(**changes)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


@frozen
class Unavailable:
    """Evidence that could not be had: never a default, always a reason.

    Attributes:
        kind: the kind of evidence that is missing.
        layer: the VQ layer, or None for the whole model.
        source: where it was looked for.
        reason: why there is none, in a few words.
        hint: what would make it available (a flag, or what to save next time); "" if nothing would.
    """

    kind: str
    layer: str | None = None
    source: Source
    reason: str
    hint: str = ""
