"""What the file's probes are given, and what they share: the training record, live rows, decay, updates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vqdoctor.checkpoint import Checkpoint
from vqdoctor.core.evidence import ACTIVE_SHARE, TrainingRecord, Unavailable
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.saved.optimizer import SavedOptimizer, saved_optimizers
from vqdoctor.saved.record import as_retrained, read_record

ESTIMATED_COUNTS = "estimated_counts"
"""Where a fix notes the keys of the EMA counts that it wrote without a training to count them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FileContext:
    """A checkpoint, the VQ layers found in it, and what was asked for.

    Attributes:
        checkpoint: the opened file.
        views: its VQ layers.
        seed: seed of everything that is drawn.
        active_share: the multiple of 1/K above which a code is active.
        histogram: whether the full counts go into the evidence.
        verify: whether every value is looked at, not samples.
    """

    checkpoint: Checkpoint
    views: tuple[QuantizerView, ...]
    seed: int = 0
    active_share: float = ACTIVE_SHARE
    histogram: bool = False
    verify: bool = False

    @cached_property
    def optimizers(self) -> tuple[SavedOptimizer, ...]:
        """The optimizer states in the file, nearest to the root first."""
        return saved_optimizers(self.checkpoint.tree)

    @cached_property
    def record(self) -> TrainingRecord:
        """What the file records of its last training."""
        return as_retrained(read_record(self.checkpoint.tree, self.optimizers), self.checkpoint.history)

    @cached_property
    def start_weight(self) -> float | None:
        """d^t, the weight that the EMA's start values still have; None where d or t is not recorded."""
        decay, updates = self.record.decay, self.record.updates
        return None if decay is None or updates is None else float(decay**updates)

    @cached_property
    def estimated_counts(self) -> frozenset[str]:
        """Keys of EMA counts that a fix of the file wrote, and that no training has counted since."""
        notes = self.checkpoint.history
        keys = notes[-1].get(ESTIMATED_COUNTS) if notes else None
        return (
            frozenset(key for key in keys if isinstance(key, str)) if isinstance(keys, list) else frozenset()
        )

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
