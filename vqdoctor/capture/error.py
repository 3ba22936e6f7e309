"""How far a layer's vectors lie from their codes, over any number of passes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from vqdoctor.capture.layer import CapturedLayer, Watched
from vqdoctor.capture.vectors import rows


@dataclass(kw_only=True)
class QuantizationError:
    """The squared distances of z_e to its codes, beside the variance of z_e.

    Attributes:
        vectors: how many vectors were seen.
        total: their sum [D].
        squares: sum of their squared lengths.
        errors: sum of their squared distances to the codes.
    """

    vectors: int = 0
    total: torch.Tensor | None = None
    squares: float = 0.0
    errors: float = 0.0

    @torch.no_grad()
    def add(self, layer: CapturedLayer, watched: Watched) -> None:
        """Take a pass into account."""
        for call in layer.calls(watched):
            if call.z_q is None or call.z_q.shape != call.z_e.shape:
                continue
            axis = layer.reader.axis(call)
            z_e, z_q = (rows(t.detach(), axis).flatten(0, 1).float() for t in (call.z_e, call.z_q))
            total = z_e.sum(dim=0).double()
            self.total = total if self.total is None else self.total + total
            self.vectors += len(z_e)
            self.squares += float(z_e.square().sum())
            self.errors += float((z_e - z_q).square().sum())

    @property
    def share(self) -> float | None:
        """Their errors as a share of their variance; None where no vector was seen, or all are alike."""
        if self.total is None or not self.vectors:
            return None
        spread = self.squares - float(self.total.square().sum()) / self.vectors
        found = self.errors / spread if spread > 0 else math.inf
        return found if math.isfinite(found) else None
