"""Reviving dead codes while the model trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from vqdoctor.capture.layer import CapturedLayer, Watched
from vqdoctor.vq.codebook import dead_codes
from vqdoctor.vq.revival import revive

WINDOW = 16
"""Vectors per code over which the usage is averaged: fewer, and a code is called dead by chance."""


class Exchange(Protocol):
    """The ranks of a training that revive the same codes, each in its own copy of the codebook."""

    def total(self, counts: torch.Tensor) -> torch.Tensor:
        """Return the sum of all ranks' counts [K]."""

    def of_first(self, vectors: torch.Tensor | None) -> torch.Tensor | None:
        """Return rank zero's vectors [N, D], float32 on the CPU; None where it has none."""


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
        self,
        watched: Watched,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        ranks: Exchange | None = None,
        mask: torch.Tensor | None = None,
    ) -> None:
        """Take a batch's codes into account, and revive what has been dead over a whole window.

        Dead codes move to vectors of this batch, no vector twice, and count as used evenly from then on.
        The most used code is never dead, so a codebook never changes as a whole.

        Args:
            watched: what the layers did with the batch.
            optimizer: the model's, whose moments of the revived codes are cleared.
            generator: of what is drawn, on all ranks alike.
            ranks: all ranks of a distributed training, which must call this together; None is this process
                alone. A code that another rank uses is then no dead one, and the codebooks stay equal.
            mask: the task's mask of the batch, whose padding counts for no code and revives none.
        """
        if not self.layer.view.writable:
            return
        counts = self.layer.counts(watched, mask=mask)
        if ranks is not None:
            nothing = torch.zeros(self.layer.num_codes, dtype=torch.float64)
            counts = ranks.total(nothing if counts is None else counts)
        if counts is None:
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
        if not dead_codes(self.usage, self.threshold).any():
            return
        vectors = self.layer.vectors(watched)
        if vectors is not None:
            vectors = self.layer.only_data(vectors, watched, mask)
        if ranks is not None and (vectors := ranks.of_first(vectors)) is not None:
            vectors = vectors.to(self.layer.codes().device)
        if vectors is None:
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
