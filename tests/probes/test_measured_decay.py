"""The EMA decay as training passes show it, whatever the counts started from."""

from __future__ import annotations

import pytest
import torch
from live_models import AutoEncoder
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import TrainForward

CODES, DIM = 64, 8


class Ema(nn.Module):
    """A layer of which most codes lie far away from the data."""

    def __init__(self, decay: float, start: float) -> None:
        super().__init__()
        self.decay = decay
        codes = torch.randn(CODES, DIM)
        codes[8:] += 50
        for name, values in (
            ("embedding", codes),
            ("ema_cluster_size", torch.full((CODES,), start)),
            ("ema_embed_sum", codes * start),
        ):
            self.register_buffer(name, values)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        indices = torch.cdist(z.detach(), self.embedding).argmin(-1)
        if self.training:
            chosen = functional.one_hot(indices, CODES).float().flatten(0, -2)
            self.ema_cluster_size.mul_(self.decay).add_(chosen.sum(0), alpha=1 - self.decay)
            self.ema_embed_sum.mul_(self.decay).add_(
                chosen.T @ z.detach().flatten(0, -2), alpha=1 - self.decay
            )
            self.embedding.copy_(self.ema_embed_sum / (self.ema_cluster_size + 1e-5)[:, None])
        z_q = self.embedding[indices]
        return z + (z_q - z).detach(), functional.mse_loss(z, z_q)


def losses(model: nn.Module, batch: torch.Tensor) -> vqdoctor.Losses:
    reconstruction, vq, *_ = model(batch)
    return vqdoctor.Losses(task=functional.mse_loss(reconstruction, batch), vq=vq)


def forward(vq: nn.Module) -> TrainForward:
    torch.manual_seed(0)
    report = vqdoctor.examine(AutoEncoder(vq), torch.randn(64, 10, 3), losses=losses)
    found = report.find(TrainForward, "vq")
    assert found is not None
    return found


def measured(vq: nn.Module) -> float | None:
    return forward(vq).decay


@pytest.mark.parametrize(("decay", "start"), [(0.99999, 1.0), (0.9, 3.0)])
def test_codes_without_a_vector_shrink_by_the_decay(decay: float, start: float) -> None:
    found = measured(Ema(decay, start))
    assert found is not None and 1 - found == pytest.approx(1 - decay, rel=0.02)


def test_counts_that_no_pass_writes_tell_no_decay() -> None:
    assert measured(Ema(1.0, 1.0)) is None


class OfOneBatch(nn.Module):
    """A layer that writes the means of each batch over its codes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(CODES, DIM) * 0.1)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        indices = torch.cdist(z.detach(), self.table).argmin(-1)
        z_q = self.table[indices]
        if self.training:
            chosen = functional.one_hot(indices, CODES).float().flatten(0, -2)
            self.table.copy_(chosen.T @ z.detach().flatten(0, -2) / (chosen.sum(0) + 1e-5)[:, None])
        return z + (z_q - z).detach(), functional.mse_loss(z, z_q), indices


class EmaWithCodes(Ema):
    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        z_q, loss = super().forward(z)
        return z_q, loss, torch.cdist(z.detach(), self.embedding).argmin(-1)


def test_codes_that_are_the_means_of_one_batch() -> None:
    assert forward(OfOneBatch()).batch_means == 1.0
    assert forward(EmaWithCodes(0.9, 1.0)).batch_means == 0.0
    assert forward(Ema(0.9, 1.0)).batch_means is None, "without codes the means are unknown"
