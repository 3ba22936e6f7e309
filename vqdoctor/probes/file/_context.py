"""What the file's probes are given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vqdoctor.checkpoint import Checkpoint
from vqdoctor.core.evidence import Unavailable
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.saved.training import SavedTraining


@dataclass(frozen=True, kw_only=True, eq=False)
class FileContext:
    """A checkpoint, the VQ layers found in it, and what was asked for.

    Attributes:
        checkpoint: the opened file.
        views: its VQ layers.
        seed: seed of everything that is drawn.
        histogram: whether the full counts go into the evidence.
        verify: whether every value is looked at, not samples.
    """

    checkpoint: Checkpoint
    views: tuple[QuantizerView, ...]
    seed: int = 0
    histogram: bool = False
    verify: bool = False

    @cached_property
    def saved(self) -> SavedTraining:
        """What the file remembers of its training."""
        return SavedTraining(checkpoint=self.checkpoint)

    @cached_property
    def _finite(self) -> dict[str, bool]:
        return {view.name: bool(np.isfinite(view.codebook).all()) for view in self.views}

    def readable(self, kind: str) -> Iterator[QuantizerView | Unavailable]:
        """Yield each layer, or, where its codebook holds NaN or infinity, why `kind` cannot be had."""
        for view in self.views:
            if self._finite[view.name]:
                yield view
            else:
                yield self.gap(kind, view, "codebook has non-finite values")

    def gap(self, kind: str, view: QuantizerView | None, reason: str, hint: str = "") -> Unavailable:
        """Return the `Unavailable` of `kind` on that layer."""
        return Unavailable(
            kind=kind, layer=view.name if view else None, source="checkpoint", reason=reason, hint=hint
        )
