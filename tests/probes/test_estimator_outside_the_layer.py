"""A layer that returns bare codes to a model which writes the straight-through estimator itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import GradientPath
from vqdoctor.core.report import Report

K, D = 16, 4


class Codes(nn.Module):
    """Vectors [..., D] in, bare codes of their shape and indices out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.randn(K, D))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.cdist(z.reshape(-1, D), self.embed).argmin(1)
        return self.embed[chosen].view(z.shape), chosen.view(z.shape[:-1])


class Through(torch.autograd.Function):
    """z and z_q in, z_q out, the gradient to z."""

    @staticmethod
    def forward(_: Any, z: torch.Tensor, z_q: torch.Tensor) -> torch.Tensor:
        return z_q.clone() + 0 * z

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


ESTIMATORS = {
    "plus": lambda z, z_q: z + (z_q - z).detach(),
    "minus": lambda z, z_q: z - (z - z_q).detach(),
    "in-parts": lambda z, z_q: z_q.detach() + z - z.detach(),
    "function": Through.apply,
    "none": lambda _, z_q: z_q,
}
FOLLOWED = ("plus", "minus")


class Model(nn.Module):
    def __init__(self, estimator: str, form: str, *, skip: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(1, D, 2, 2), nn.ConvTranspose2d(D, 1, 2, 2)
        self.side = nn.ConvTranspose2d(D, 1, 2, 2) if skip else None
        self.vq, self.estimate, self.form = Codes(), ESTIMATORS[estimator], form

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x)
        last = z.permute(0, 2, 3, 1)
        codes, _ = self.vq(last.reshape(-1, D) if self.form == "flat" else last)
        z_q = codes.view(last.shape).permute(0, 3, 1, 2)
        made = self.decoder(self.estimate(z, z_q))
        if self.side is not None:
            made = made + self.side(z)
        return made, functional.mse_loss(z_q, z.detach()) + 0.25 * functional.mse_loss(z, z_q.detach())


def losses(model: Model, batch: torch.Tensor) -> vqdoctor.Losses:
    made, vq = model(batch)
    return vqdoctor.Losses(task=functional.mse_loss(made, batch), vq=vq)


def examined(estimator: str, form: str, skip: bool) -> Report:
    torch.manual_seed(0)
    return vqdoctor.examine(Model(estimator, form, skip=skip), torch.rand(64, 1, 8, 8), losses=losses)


@pytest.mark.parametrize("skip", [False, True], ids=["", "skip"])
@pytest.mark.parametrize("form", ["flat", "map"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_estimator_is_judged_where_the_model_writes_it(estimator: str, form: str, skip: bool) -> None:
    report = examined(estimator, form, skip)
    found = {finding.code for finding in report.findings}
    assert ("VQ101" in found) == (estimator == "none")
    assert not found & {"VQ102", "VQ103"}
    path = report.find(GradientPath, "vq")
    if estimator in FOLLOWED:
        assert path is not None and path.estimator == "straight-through"
    elif estimator != "none":
        (gap,) = (item for item in report.unavailable if item.kind == "gradient-path")
        assert "outside the layer" in gap.reason


class CutOff(Codes):
    """A layer with an estimator of its own, after which it puts out something else."""

    def __init__(self, *, looked_up: bool) -> None:
        super().__init__()
        self.looked_up = looked_up

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, chosen = super().forward(z)
        through = z + (z_q - z).detach()
        return (self.embed[chosen] if self.looked_up else through.detach()), chosen


@pytest.mark.parametrize("looked_up", [False, True])
def test_a_layer_that_cuts_its_own_estimator_off_passes_no_gradient(looked_up: bool) -> None:
    torch.manual_seed(0)
    model = Model("none", "vectors", skip=False)
    model.vq = CutOff(looked_up=looked_up)
    report = vqdoctor.examine(model, torch.rand(64, 1, 8, 8), losses=losses)
    assert report.findings[0].code == "VQ101"
    path = report.find(GradientPath, "vq")
    assert path is not None and path.estimator == "none"
