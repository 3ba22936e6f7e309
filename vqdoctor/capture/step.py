"""One layer at work on one training batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from vqdoctor.capture.call import Call
from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.capture.masks import data_positions
from vqdoctor.capture.pulls import Pulls
from vqdoctor.models.task import Losses


@dataclass(kw_only=True)
class Step:
    """One layer at work on one training batch, all in one autograd graph.

    Attributes:
        layer: the layer, on the copy that ran.
        call: its call.
        z_q: the layer's own output.
        entered: the tensor that the rest of the model got: z_q, made to require a gradient where it did not.
        losses: the losses of the batch.
        pulls: their gradients.
    """

    layer: CapturedLayer
    call: Call
    z_q: torch.Tensor
    entered: torch.Tensor
    losses: Losses
    pulls: Pulls

    @property
    def z_e(self) -> torch.Tensor:
        """The layer's input."""
        return self.call.z_e

    @property
    def indices(self) -> torch.Tensor | None:
        """The codes that the layer chose; None where it gives none."""
        return self.call.indices

    @property
    def model(self) -> torch.nn.Module:
        """The copy that ran."""
        return self.layer.model

    @cached_property
    def axis(self) -> int:
        """The axis of the vectors' elements."""
        return self.layer.reader.axis(self.call)

    @property
    def vectors(self) -> int:
        """How many vectors were quantized."""
        return self.z_e.numel() // self.z_e.shape[self.axis]

    @cached_property
    def data(self) -> torch.Tensor:
        """Which vectors are data and no padding, bool [vectors], in the order of `rows`."""
        return self._kept(self.losses.mask)

    @cached_property
    def quantized(self) -> torch.Tensor:
        """Which vectors the layer did not mask itself, bool [vectors], in the order of `rows`."""
        return self._kept(None)

    def _kept(self, mask: torch.Tensor | None) -> torch.Tensor:
        codes, rows = self.layer.reader.given(self.call), self.z_e.shape[0]
        kept = data_positions(codes, mask, rows, self.vectors // rows)
        every = torch.ones(self.vectors, dtype=torch.bool, device=self.z_e.device)
        return every if kept is None else kept.flatten().to(every.device)


class Steps(dict[str, Step]):
    """The layers at work on one training batch, by name.

    Attributes:
        pulls: the gradients of the batch's losses.
        order: the model's modules in the order of their first calls.
    """

    def __init__(self, steps: Mapping[str, Step], pulls: Pulls, order: Sequence[str]) -> None:
        """Take the steps of one batch."""
        super().__init__(steps)
        self.pulls = pulls
        self.order = order
