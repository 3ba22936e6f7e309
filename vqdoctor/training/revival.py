"""Reviving dead codes while the model trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from vqdoctor.capture.layer import CapturedLayer, Watched
from vqdoctor.vq.codebook import dead_codes
from vqdoctor.vq.revival import revive

WINDOW = 16
"""Vectors per code over which the usage is averaged: fewer, and a code is called dead by chance."""


@dataclass(kw_only=True, eq=False)
class Revival:
    """The running usage of one layer, and the revival of its dead codes.

    Attributes:
        layer: the layer.
        threshold: a code is dead under this multiple of 1/K of the running usage.
        usage: running mean of the counts of a batch, float64 [K]; None before the first.
        waited: vectors since the codes were last looked over.
        revived: codes that were revived since the number was last taken.
    """

    layer: CapturedLayer
    threshold: float
    usage: torch.Tensor | None = None
    waited: int = 0
    revived: int = field(default=0)

    @torch.no_grad()
    def after_step(
        self, watched: Watched, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> None:
        """Take a batch's codes into account, and revive what has been dead over a whole window.

        Dead codes move to vectors of this batch, no vector twice, and count as used evenly from then on.
        The most used code is never dead, so a codebook never changes as a whole.
        """
        counts = self.layer.counts(watched)
        if counts is None or not self.layer.view.writable:
            return
        size = int(counts.sum())
        if not size:
            return
        window = max(1.0, WINDOW * self.layer.num_codes / size)
        keep = (window - 1) / (window + 1)  # an EMA of this decay remembers a window of batches
        self.usage = counts if self.usage is None else self.usage * keep + counts * (1 - keep)
        self.waited += size
        if self.waited < WINDOW * self.layer.num_codes:
            return
        self.waited = 0
        vectors = self.layer.vectors(watched)
        if vectors is None or not dead_codes(self.usage, self.threshold).any():
            return
        revived = revive(
            self.layer.codebook,
            usage=self.usage,
            vectors=vectors,
            generator=generator,
            threshold=self.threshold,
            moments=self.layer.moments(optimizer),
        )
        self.usage[revived] = self.usage.mean()
        self.revived += len(revived)

    def take(self) -> int:
        """Return how many codes were revived since this was last asked."""
        revived, self.revived = self.revived, 0
        return revived

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        return {"usage": self.usage, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.usage, self.waited = state["usage"], state["waited"]
