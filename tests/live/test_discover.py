"""VQ layers that show by their output alone, and modules that only look like one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from vector_quantize_pytorch import FSQ, LFQ, ResidualFSQ

from vqdoctor.live.discover import discover

DIM = 8


class Prototypes(nn.Module):
    """A user's quantizer whose codebook [D, K] has a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors = nn.Parameter(torch.randn(DIM, 16))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        codes = self.anchors.T[torch.cdist(z, self.anchors.T.expand(len(z), -1, -1)).argmin(-1)]
        return z + (codes - z).detach()


class Signs(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z + (torch.sign(z) - z).detach()


class Experts(nn.Module):
    """A mixture of experts: integers come out, but they do not say what else does."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.expert = nn.Linear(DIM, 4), nn.Linear(DIM, DIM)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = self.router(z).argmax(-1)
        return self.expert(z) * (chosen + 1)[..., None], chosen


class First(nn.Module):
    def forward(self, out: tuple[torch.Tensor, ...] | torch.Tensor) -> torch.Tensor:
        return out[0] if isinstance(out, tuple) else out


def found_in(layer: nn.Module, known: tuple[str, ...] = ()):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, DIM), layer, First(), nn.Linear(DIM, 3))
    return discover(model, lambda m: m(torch.randn(16, 8, 3)), known)


@pytest.mark.parametrize(
    ("layer", "codes"),
    [
        (lambda: FSQ(levels=[8, 5, 5], dim=DIM), {"1": 200}),
        (lambda: FSQ(levels=[8, 8, 8, 5, 5, 5], dim=DIM), {"1": 64000}),
        (lambda: LFQ(codebook_size=64, dim=DIM), {"1": 64}),
        (lambda: ResidualFSQ(levels=[5, 5], dim=DIM, num_quantizers=2), {"1.layers.0": 25, "1.layers.1": 25}),
        (Signs, {"1": 256}),
    ],
    ids=["fsq", "large fsq", "lfq", "residual fsq", "signs"],
)
def test_layers_without_a_codebook(layer, codes) -> None:
    found = found_in(layer())
    assert {view.name: view.num_codes for view in found.implicit} == codes
    assert not found.explicit
    with pytest.raises(LookupError, match="no codebook"):
        _ = found.implicit[0].codebook


def test_a_codebook_is_known_by_its_rows() -> None:
    found = found_in(layer := Prototypes())
    (view,) = found.explicit
    assert (view.name, view.num_codes, view.dim) == ("1", 16, DIM)
    assert found.codebook_names == {"1": "1.anchors"}
    assert torch.equal(torch.from_numpy(view.codebook), layer.anchors.T)


@pytest.mark.parametrize(
    "layer",
    [
        Experts,
        lambda: nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU()),
        lambda: nn.Dropout(0.5),
        lambda: nn.Softmax(dim=-1),
        lambda: nn.Linear(DIM, DIM).requires_grad_(False),
    ],
    ids=["experts", "relu", "dropout", "softmax", "linear"],
)
def test_what_does_not_quantize(layer) -> None:
    found = found_in(layer())
    assert not found.explicit and not found.implicit


def test_what_is_known_is_not_found_again() -> None:
    assert not found_in(Prototypes(), known=("1",)).explicit
