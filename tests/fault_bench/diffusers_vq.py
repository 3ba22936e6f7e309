"""The VectorQuantizer of diffusers' VQModel; a fault is a user's subclass of it."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.vae import VectorQuantizer
from torch import nn
from torch.nn import functional

from fault_bench.quantizer import Implementation, Quantized, Table, as_map
from fault_bench.setup import Setup


class Changed(VectorQuantizer):
    """A user's version: other estimators and other losses around the library's lookup."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup.codes, setup.dim, beta=setup.beta, legacy=not setup.beta_on_encoder)
        self.setup = setup

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[object, ...]]:
        z_q, loss, found = super().forward(z)
        if not self.setup.codebook_trained:  # both terms are computed on what the estimator returns
            loss = functional.mse_loss(z_q, z.detach()) + self.beta * functional.mse_loss(z, z_q.detach())
        return z_q if self.setup.straight_through else z_q.detach(), loss, found


def build(setup: Setup) -> nn.Module:
    own = setup.straight_through and setup.codebook_trained
    if own:
        return VectorQuantizer(setup.codes, setup.dim, beta=setup.beta, legacy=not setup.beta_on_encoder)
    return Changed(setup)


def quantize(vq: nn.Module, z: torch.Tensor) -> Quantized:
    z_q, loss, _ = vq(as_map(z))
    return z_q.view(z.shape), loss


IMPLEMENTATION = Implementation(
    name="diffusers",
    build=build,
    quantize=quantize,
    tables=lambda vq: [Table(codes=vq.embedding.weight.data)],
    kind="gradient",
    switches=frozenset({"straight_through", "codebook_trained", "beta_on_encoder", "codebook_decay", "beta"}),
)
