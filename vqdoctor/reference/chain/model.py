"""The model of the chain, whose stages can be left out one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vqdoctor.reference.chain.hdp import HDP
from vqdoctor.reference.chain.hsmm import HSMM
from vqdoctor.reference.quantizer import VectorQuantizerEMA2D

STRIDE = 4
"""Samples of an input to one step of the sequence."""


class ChainClassifier(nn.Module):
    """Input [B, channels, 2, T] -> Conv2d -> VQ -> HDP -> HSMM -> a class for each of T / 4 steps.

    A stage that is left out hands its input on. The decoder always reconstructs from z_q.
    """

    def __init__(
        self,
        *,
        num_codes: int = 64,
        dim: int = 32,
        decay: float = 0.99,
        straight_through: bool = True,
        use_vq: bool = True,
        use_hdp: bool = True,
        use_hsmm: bool = True,
        clusters: int = 24,
        base_clusters: int = 32,
        states: int = 7,
        temperature: float = 5.7,
        durations: str = "negative-binomial",
        input_transitions: bool = False,
        channels: int = 3,
        classes: int = 7,
        width: int = 32,
    ) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, (2, 8), stride=(1, 2), padding=(0, 3)),
            nn.ReLU(),
            nn.Conv2d(width, width, (1, 8), stride=(1, 2), padding=(0, 3)),
            nn.ReLU(),
            nn.Conv2d(width, dim, 1),
        )
        self.vq = (
            VectorQuantizerEMA2D(num_codes, dim, decay=decay, straight_through=straight_through)
            if use_vq
            else None
        )
        features = dim
        self.hdp = self.hsmm = None
        if use_hdp:
            self.hdp = HDP(clusters, features, base_clusters=base_clusters, temperature=temperature)
            features = clusters
        if use_hsmm:
            self.hsmm = HSMM(features, states, durations=durations, input_transitions=input_transitions)
            features = states
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(dim, width, (1, 4), stride=(1, 2), padding=(0, 1)),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, (2, 4), stride=(1, 2), padding=(0, 1)),
        )
        self.activity_classifier = nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Linear(width, classes)
        )

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        """Return logits [B, T / 4, classes], the reconstruction, and outputs and losses of the stages.

        Without VQ the indices are None and vq_loss is empty; without HDP hdp_loss is zero. `assignments`
        [B, T / 4, clusters], `posterior` [B, T / 4, states] and `scores` are None without their stage.
        """
        z_q = self.encoder(x)
        indices = assignments = states = scores = None
        vq_loss: dict[str, torch.Tensor] = {}
        if self.vq is not None:
            z_q, indices, vq_loss["vq"], _ = self.vq(z_q)
        steps = z_q.squeeze(2).transpose(1, 2)
        hdp_loss = steps.new_zeros(())
        if self.hdp is not None:
            steps, hdp_loss = self.hdp(steps)
            assignments = steps
        if self.hsmm is not None:
            steps, scores = self.hsmm(steps)
            states = steps
        return {
            "logits": self.activity_classifier(steps),
            "reconstruction": self.decoder(z_q),
            "indices": indices,
            "vq_loss": vq_loss,
            "hdp_loss": hdp_loss,
            "assignments": assignments,
            "posterior": states,
            "scores": scores,
        }
