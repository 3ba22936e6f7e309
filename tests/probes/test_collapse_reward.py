"""Does the VQ loss reward collapse? Asked of layers that chose one code, whatever made them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from live_models import AutoEncoder
from stored import Stored
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import LFQ, VectorQuantize

from vqdoctor.layouts import find_quantizers
from vqdoctor.models.task import Losses
from vqdoctor.probes.model import ModelContext, collapse_reward
from vqdoctor.probes.probe import Missing


class Collapsed:
    """A task whose encoder gives nearly one vector for all samples."""

    vq_weight = 1.0

    def __init__(self, vq: nn.Module) -> None:
        torch.manual_seed(0)
        self.built = AutoEncoder(vq)
        with torch.no_grad():
            self.built.encoder.weight.mul_(1e-3)

    def model(self) -> nn.Module:
        return self.built

    def batches(self, split: str) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        for _ in range(2):
            yield torch.randn(16, 8, 3, generator=generator)

    def losses(self, model: nn.Module, batch: torch.Tensor) -> Losses:
        out, _, vq = model(batch)
        return Losses(task=functional.mse_loss(out, batch), vq=vq.sum())


class Signs(nn.Module):
    """A home-made LFQ: entropy of each vector, less `gamma` times that of the batch; no estimator if cut."""

    def __init__(self, gamma: float, cut: bool = False) -> None:
        super().__init__()
        self.gamma, self.cut, self.codebook_size = gamma, cut, 256

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z_q = torch.where(z > 0, 1.0, -1.0)
        shares = torch.sigmoid(2 * z)
        batch = shares.flatten(0, -2).mean(0)
        loss = functional.mse_loss(z, z_q) + entropy(shares).mean() - self.gamma * entropy(batch)
        codes = ((z > 0) * 2 ** torch.arange(z.shape[-1])).sum(-1)
        return z_q if self.cut else z + (z_q - z).detach(), codes, loss


def entropy(p: torch.Tensor) -> torch.Tensor:
    return -(p * (p + 1e-6).log() + (1 - p) * (1 - p + 1e-6).log()).sum(-1)


class Mapped(nn.Module):
    """The same behind a map, with another behind it, and without codes."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.signs, self.down, self.up = Signs(gamma), nn.Linear(8, 5), nn.Linear(5, 8)
        self.basis = 2 ** torch.arange(5)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.signs(self.down(z))
        return self.up(z_q), torch.zeros(()), loss


class Soft(nn.Module):
    """Nearest codes, with the diversity loss of wav2vec 2.0, `sign` 1, or its opposite."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.codebook, self.sign = nn.Parameter(torch.randn(32, 8)), sign

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        distances = torch.cdist(z.flatten(0, 1), self.codebook)
        codes = distances.argmin(1)
        z_q = self.codebook[codes].view_as(z)
        use = (-distances).softmax(1).mean(0)
        loss = functional.mse_loss(z, z_q.detach()) + functional.mse_loss(z.detach(), z_q)
        return z + (z_q - z).detach(), codes.view(z.shape[:-1]), loss + self.sign * (use * use.log()).sum()


class Normed(nn.Module):
    """A batch norm before the lookup: in company a vector is another one than alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.vq = nn.BatchNorm1d(8), VectorQuantize(dim=8, codebook_size=32)

    def forward(self, z: torch.Tensor) -> Any:
        return self.vq(self.norm(z.flatten(0, 1)).view_as(z))


class TwoScales(nn.Module):
    """Two sound layers, the second behind a map of all positions of the first, as in a VQ-VAE-2."""

    def __init__(self) -> None:
        super().__init__()
        self.top, self.bottom = (VectorQuantize(dim=8, codebook_size=32) for _ in range(2))
        self.mixed = nn.Linear(8, 8)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        above, codes, loss = self.top(z)
        below, _, further = self.bottom(z + self.mixed(above.transpose(1, 2)).transpose(1, 2))
        return below, codes, loss + further


def all_asked(vq: nn.Module) -> dict[str, Any]:
    """Return what the probe says of each layer, whose codebook has a known name or none."""
    task = Collapsed(vq)
    stored = {name: Stored(t) for name, t in task.built.state_dict().items()}
    context = ModelContext(model=task.built, task=task, views=find_quantizers(stored).views)
    context = context if context.views else context.others(context.discover())
    return {**collapse_reward.measure(context)}


def asked(vq: nn.Module) -> Any:
    """Return what the probe says of the only layer."""
    (reward,) = all_asked(vq).values()
    return reward


def test_a_layer_behind_another_one_couples_its_vectors_and_is_not_blamed_on_it() -> None:
    """A two-level model was told to turn the sign of an entropy term that it does not have."""
    told = all_asked(TwoScales())
    assert isinstance(told["vq.top"], Missing) and "another layer" in told["vq.top"].reason
    assert getattr(told["vq.bottom"], "reach", 0.0) < 1e-5


@pytest.mark.parametrize(
    ("vq", "rewards"),
    [
        (lambda: Signs(gamma=-1.0), True),
        (lambda: Signs(gamma=1.0), False),
        (lambda: Signs(gamma=1.0, cut=True), False),
        (lambda: Mapped(gamma=-1.0), True),
        (lambda: Mapped(gamma=1.0), False),
        (lambda: Signs(gamma=0.0), False),
        (lambda: LFQ(dim=8, codebook_size=256), False),
        (lambda: LFQ(dim=8, codebook_size=256, diversity_gamma=-2.0), True),
        (lambda: Soft(sign=1.0), False),
        (lambda: Soft(sign=-1.0), True),
        (lambda: Soft(sign=0.0), False),
    ],
)
def test_the_sign_of_the_term_that_couples_vectors(vq: Any, rewards: bool) -> None:
    reward = asked(vq())
    assert reward.reach >= 0 and ((reward.spread > 1.02 * reward.one and reward.reach > 0.02) is rewards)


def test_a_mean_over_vectors_is_the_same_in_both() -> None:
    reward = asked(Soft(sign=0.0))
    assert reward.spread == pytest.approx(reward.one, rel=1e-5) and reward.reach < 1e-5


def test_terms_on_codes_alone_reach_no_encoder() -> None:
    orthogonal = VectorQuantize(
        dim=8, codebook_size=32, orthogonal_reg_weight=10, orthogonal_reg_active_codes_only=True,
        learnable_codebook=True, ema_update=False,
    )  # fmt: skip
    assert asked(orthogonal).reach < 1e-5


def test_a_batch_norm_in_the_layer_is_not_judged() -> None:
    assert getattr(asked(Normed()), "reach", 0.0) < 1e-5
