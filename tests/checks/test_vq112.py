"""VQ112: a layer that takes the farthest code, beside layers that choose otherwise and rightly."""

from __future__ import annotations

import pytest
import torch
from judged import run_advice, says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import CodeChoice

CHOICE = CodeChoice.healthy(direction=0.0)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (CHOICE.replace(nearest=0.0, farthest=0.91, product=0.0), "error"),
        (CHOICE.replace(nearest=0.0, farthest=0.89, product=0.0), "passes"),
        (CHOICE.replace(nearest=0.0, farthest=1.0, product=0.9), "passes"),
        (CHOICE.replace(nearest=0.0, farthest=1.0, product=0.0, direction=0.9), "passes"),
        (CHOICE.replace(nearest=0.9, farthest=1.0, product=0.0), "passes"),
    ],
)
def test_limits(choice: CodeChoice, expected: str) -> None:
    assert says("VQ112", choice) == expected


class Model(nn.Module):
    """A lookup by the nearest, the farthest or the most similar code, or the nearest of turned codes."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(4, 6)
        self.vq = Lookup(form)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.vq(self.encoder(x))
        return self.decoder(z_q), loss


class Lookup(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.embedding = nn.Embedding(2 if form == "turned" else 16, 4)
        if form == "turned":  # two codes about zero, of which a map makes each other
            self.embedding.weight.data[1] = -self.embedding.weight.data[0]

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        table = -self.embedding.weight if self.form == "turned" else self.embedding.weight
        codes = table.detach()
        if self.form == "cosine":
            similar = functional.normalize(z, dim=-1) @ functional.normalize(codes, dim=-1).T
        elif self.form == "product":
            similar = z @ codes.T
        else:
            similar = -torch.cdist(z, codes)
        indices = similar.argmin(-1) if self.form == "farthest" else similar.argmax(-1)
        z_q = table[indices]
        loss = functional.mse_loss(z_q, z.detach()) + functional.mse_loss(z, z_q.detach())
        return z + (z_q - z).detach(), indices, loss


def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
    out, vq = model(x)
    return vqdoctor.Losses(task=functional.mse_loss(out, x), vq=vq)


@pytest.mark.parametrize("form", ["nearest", "farthest", "cosine", "product", "turned"])
def test_models(form: str) -> None:
    torch.manual_seed(0)
    report = vqdoctor.examine(Model(form), torch.randn(512, 6), losses=losses)
    found = [f.code for f in report.findings if f.code == "VQ112"]
    assert found == (["VQ112"] if form == "farthest" else [])
    assert any(isinstance(item, CodeChoice) for item in report.evidence) is (form != "turned")


def test_the_advice_takes_the_nearest() -> None:
    z_e, codebook = torch.tensor([[0.0, 0.0], [5.0, 5.0]]), torch.tensor([[5.0, 4.0], [0.0, 1.0]])
    assert run_advice("VQ112", z_e=z_e, codebook=codebook)["indices"].tolist() == [1, 0]  # type: ignore[attr-defined]
