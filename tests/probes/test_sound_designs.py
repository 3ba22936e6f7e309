"""Sound layers of uncommon design: directions compared, no encoder, one codebook for all levels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import ResidualVQ

import vqdoctor
from vqdoctor.core.evidence import CodeDependence, DataMatch, GradientPath, Usage
from vqdoctor.core.report import Report

K, D = 32, 4


class ByAngle(nn.Module):
    """Only directions count; it puts out the codes that it stores, of any length, or their directions."""

    def __init__(self, unit_outputs: bool) -> None:
        super().__init__()
        self.atoms = nn.Parameter(torch.randn(K, D) * torch.linspace(0.3, 1.5, K)[:, None])
        self.unit_outputs = unit_outputs
        self.chosen = torch.zeros(0)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        u, atoms = functional.normalize(z, dim=-1), functional.normalize(self.atoms, dim=-1)
        self.chosen = (u @ atoms.T).argmax(-1)
        loss = (1 - (atoms[self.chosen] * u).sum(-1)).mean()
        if self.unit_outputs:
            return u + (atoms[self.chosen] - u).detach(), loss
        return z + (self.atoms[self.chosen] - z).detach(), self.chosen, loss


class Model(nn.Module):
    def __init__(self, vq: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.vq, self.decoder = encoder, vq, nn.Linear(D, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, *_, loss = self.vq(self.encoder(x))
        return self.decoder(z_q), loss.sum()


class Words(nn.Module):
    """Visual words: the data itself is quantized by centres that were placed beforehand."""

    def __init__(self, freeze: bool = True, cut: bool = False) -> None:
        super().__init__()
        self.register_buffer("centres", torch.randn(K, D))
        self.before = nn.Linear(D, D)
        self.before.requires_grad_(not freeze)
        self.cut, self.net = cut, nn.Linear(D, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = x[:, :D] if not self.cut else self.before(x[:, :D]).detach()
        return self.net(self.centres[torch.cdist(z, self.centres).argmin(-1)]), torch.zeros(())


def losses(model: nn.Module, batch: torch.Tensor) -> vqdoctor.Losses:
    out, vq = model(batch)
    return vqdoctor.Losses(task=functional.mse_loss(out, batch), vq=vq if vq.requires_grad else None)


def examined(model: nn.Module, x: torch.Tensor, **more: Any) -> Report:
    report = vqdoctor.examine(model, x, losses=losses, **more)
    assert not [outcome for outcome in report.outcomes if outcome.status == "crashed"]
    return report


@pytest.mark.parametrize("unit_outputs", [True, False])
def test_a_layer_that_compares_directions_is_measured_by_them(unit_outputs: bool) -> None:
    torch.manual_seed(0)
    model, x = Model(ByAngle(unit_outputs), nn.Linear(8, D)), torch.randn(512, 8)
    with torch.no_grad():
        model.encoder.weight.mul_(40)  # as long as it likes
    report = examined(model, x)
    with torch.no_grad():
        model.eval()(x)
    usage, data = report.find(Usage, "vq"), report.find(DataMatch, "vq")
    assert usage is not None and usage.used == len(model.vq.chosen.unique())
    assert data is not None and data.data_rms == pytest.approx(D**-0.5, rel=1e-3), "of length 1"
    assert "VQ301" not in {finding.code for finding in report.findings}


@pytest.mark.parametrize(
    ("freeze", "cut", "waits"), [(True, False, False), (True, True, False), (False, True, True)]
)
def test_where_no_trained_parameter_comes_before_the_layer_no_gradient_is_missed(
    freeze: bool, cut: bool, waits: bool
) -> None:
    torch.manual_seed(0)
    report = examined(Words(freeze, cut), torch.randn(256, 8))
    assert bool({"VQ101", "VQ102"} & {finding.code for finding in report.findings}) == waits
    assert (report.find(GradientPath, "centres") is not None) == waits


def test_the_codes_of_all_levels_of_one_codebook_are_swapped_together() -> None:
    torch.manual_seed(0)
    rvq = ResidualVQ(dim=D, num_quantizers=4, codebook_size=K, shared_codebook=True, kmeans_init=True)
    model, x = Model(rvq, nn.Linear(8, D)), torch.randn(256, 6, 8)
    model.train()(x)
    report = examined(model, x)
    (dependence,) = (item for item in report.evidence if isinstance(item, CodeDependence))
    assert dependence.swapped == pytest.approx(1.0, abs=1e-3)
    assert dependence.around == 0


class Follows(nn.Module):
    """An EMA table; the model reshapes z_e for its lookup, and takes loss and estimator before that."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, D), nn.Linear(D, 8)
        self.register_buffer("table", torch.randn(K, D))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x)
        z_q = self.table[torch.cdist(z.reshape(-1, D), self.table).argmin(-1)].view_as(z)
        return self.decoder(z + (z_q - z).detach()), functional.mse_loss(z, z_q.detach())


def test_a_loss_that_takes_z_e_before_it_is_reshaped_is_in_the_loss() -> None:
    torch.manual_seed(0)
    report = examined(Follows(), torch.randn(128, 6, 8))
    assert [layer.name for layer in report.layers] == ["table"]
    assert not {"VQ101", "VQ102", "VQ205"} & {finding.code for finding in report.findings}
