"""VQ105 wrong-flatten just inside and just outside its limits."""

from __future__ import annotations

import pytest
import torch
from judged import says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import Evidence, Flattening

CUT = Flattening.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # a layer that mixes positions on purpose follows neither positions nor strips
        ([CUT.replace(equal=0.91, equal_as_stored=1.0)], "passes"),
        ([CUT.replace(equal=0.89, equal_as_stored=1.0)], "error"),
        ([CUT.replace(equal=0.1, equal_as_stored=0.2)], "cannot judge"),
        ([CUT.replace(equal=0.1, equal_as_stored=None)], "cannot judge"),
        ([CUT.replace(equal=0.1, equal_as_stored=0.2, output_as_stored=0.91)], "error"),
        ([CUT.replace(equal=0.1, equal_as_stored=0.2, output_as_stored=0.89)], "cannot judge"),
        ([CUT.replace(equal=0.91, output_as_stored=1.0)], "passes"),
        ([CUT.replace(equal=0.1, equal_as_stored=1.0, by_chance=0.81)], "cannot judge"),
        ([CUT.replace(positions=1, equal=None, by_chance=None, input_runs=None)], "cannot judge"),
        ([CUT.replace(positions=1, equal=None, by_chance=None, input_runs=True)], "error"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ105", *evidence) == expected


class Signs(nn.Module):
    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = z.reshape(-1, 6)
        q = torch.where(rows > 0, 1.0, -1.0).view_as(z)
        return z + (q - z).detach(), ((rows > 0) * 2 ** torch.arange(6)).sum(-1).view(z.shape[:2])


class Square(nn.Module):
    """As many positions as dimensions: signs of the last axis."""

    def __init__(self, convolution: bool) -> None:
        super().__init__()
        self.convolution = convolution
        self.encoder = nn.Conv1d(3, 6, 1) if convolution else nn.Linear(18, 36)
        self.lfq, self.decoder = Signs(), nn.Linear(36, 18)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x if self.convolution else x.flatten(1)).reshape(len(x), 6, 6)
        q, indices = self.lfq(z)
        return self.decoder(q.flatten(1)).view_as(x), indices


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("convolution", [False, True])
def test_as_many_positions_as_dimensions(convolution: bool) -> None:
    """Behind a convolution the last axis holds positions, and strips are cut; else it holds vectors."""
    torch.manual_seed(0)
    model = Square(convolution)

    def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
        return vqdoctor.Losses(task=functional.mse_loss(model(x)[0], x))

    report = vqdoctor.examine(model, torch.randn(256, 3, 6), losses=losses)
    assert report.layers
    assert [f.code for f in report.findings if f.code == "VQ105"] == (["VQ105"] if convolution else [])


class Maps(nn.Module):
    """A quantizer of channel-first maps.

    Args:
        back: whether the codes are permuted back, or only viewed.
        mixes: whether the layer blends each position with its neighbour on purpose.
    """

    def __init__(self, *, back: bool, mixes: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 6)
        self.back, self.mixes = back, mixes

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        b, d, *size = z.shape
        vectors = z.movedim(1, -1).reshape(-1, d)
        codes = self.embedding(torch.cdist(vectors, self.embedding.weight).argmin(-1))
        z_q = codes.view(b, *size, d).movedim(-1, 1) if self.back else codes.view(z.shape)
        z_q = (z_q + z_q.roll(1, -1)) / 2 if self.mixes else z_q
        return z + (z_q - z).detach()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("back", "mixes", "size"),
    [(False, False, (4, 4)), (False, False, (10,)), (True, False, (4, 4)), (True, True, (4, 4))],
)
def test_the_way_back_is_permuted_as_well(back: bool, mixes: bool, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv1d if len(size) == 1 else nn.Conv2d
    model = nn.Sequential()
    model.add_module("encoder", convolution(3, 6, 1))
    model.add_module("vq", Maps(back=back, mixes=mixes))
    model.add_module("decoder", convolution(6, 3, 1))

    def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
        return vqdoctor.Losses(task=functional.mse_loss(model(x), x))

    report = vqdoctor.examine(model, torch.randn(64, 3, *size), losses=losses)
    said = [f.message for f in report.findings if f.code == "VQ105"]
    assert report.layers and len(said) == (not back)
    assert all("behind the lookup" in message for message in said)
