"""VQ113: a layer that chooses by the largest product, beside layers that may, or that choose otherwise."""

from __future__ import annotations

import pytest
import torch
from judged import run_advice, says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import CodeChoice, LossTerms

CHOICE = CodeChoice.healthy(nearest=0.6, product=1.0, direction=0.7)
TERMS = LossTerms.healthy()
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("choice", "terms", "expected"),
    [
        (CHOICE.replace(product=0.9991, nearest=0.979), TERMS, "warning"),
        (CHOICE.replace(product=0.9989), TERMS, "passes"),
        (CHOICE.replace(nearest=0.981), TERMS, "passes"),
        (CHOICE.replace(direction=0.9991), TERMS, "passes"),
        (CHOICE.replace(farthest=1.0), TERMS, "passes"),
        (CHOICE, TERMS.replace(commitment=None), "passes"),
    ],
)
def test_limits(choice: CodeChoice, terms: LossTerms, expected: str) -> None:
    assert says("VQ113", choice, terms) == expected


class Lookup(nn.Module):
    """A lookup that returns no indices, by one of several similarities, with one of several losses."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.codes = nn.Parameter(torch.randn(16, 4))
        if form == "one length":
            self.codes.data = functional.normalize(self.codes.data, dim=-1)
        self.project = nn.Linear(4, 16)  # of a layer whose choice is by logits

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes, up = self.codes.detach(), 1.0
        if self.form == "cosine":
            similar = functional.normalize(z, dim=-1) @ functional.normalize(codes, dim=-1).T
        elif self.form == "logits":
            similar = self.project(z)
        elif self.form == "nearest":
            similar = -torch.cdist(z, codes)
        elif self.form == "scaled input":  # nearly by product, as lengths hardly count beside such vectors
            up = 1e4
            similar = -torch.cdist(up * z, codes)
        else:
            similar = 2 * z @ codes.T - z.square().sum(-1, keepdim=True)
        z_q = self.codes[similar.argmax(-1)]
        if self.form == "directions in the loss":
            loss = 2 - 2 * functional.cosine_similarity(z_q.detach(), z).mean()
        else:
            loss = functional.mse_loss(z_q, up * z.detach()) + functional.mse_loss(up * z, z_q.detach())
        return z + (z_q - z).detach(), loss


class Model(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(4, 6)
        self.vq = Lookup(form)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss = self.vq(self.encoder(x))
        return self.decoder(z_q), loss


def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
    out, vq = model(x)
    return vqdoctor.Losses(task=functional.mse_loss(out, x), vq=vq)


@pytest.mark.parametrize(
    "form",
    [
        "product", "nearest", "cosine", "one length", "logits", "scaled input", "directions in the loss",
    ],
)  # fmt: skip
def test_models(form: str) -> None:
    torch.manual_seed(0)
    report = vqdoctor.examine(Model(form), torch.randn(512, 6), losses=losses, select=["VQ113"])
    assert [f.code for f in report.findings] == (["VQ113"] if form == "product" else [])
    (choice,) = (item for item in report.evidence if isinstance(item, CodeChoice))
    by_product = form in ("product", "one length", "scaled input", "directions in the loss")
    assert (choice.product >= 0.999) is by_product


def test_the_advice_takes_the_nearest() -> None:
    z_e, codebook = torch.tensor([[1.0, 0.0], [9.0, 1.0]]), torch.tensor([[9.0, 0.0], [1.0, 0.1]])
    assert run_advice("VQ113", z_e=z_e, codebook=codebook)["indices"].tolist() == [1, 0]  # type: ignore[attr-defined]
