"""Dumped indices of layers that store no table, and layers with several codebooks, each counted apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import FSQ, LFQ

from vqdoctor.core.errors import UserError
from vqdoctor.engine import UserModel, examine, exit_code
from vqdoctor.models.task import Losses

RNG = np.random.default_rng(0)
LEVELS = [4, 4, 4]


class Model(nn.Module):
    """Linear encoder and decoder around a layer without a table."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.encoder, self.q, self.decoder = nn.Linear(3, 8), layer, nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = self.decoder(self.q(self.encoder(x))[0])
        return decoded


class Task:
    vq_weight = 1.0

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return Model(FSQ(levels=LEVELS, num_codebooks=2, dim=8))

    def batches(self, split: str) -> Any:
        return torch.randn(256, 16, 3, generator=torch.Generator().manual_seed(1)).split(64)

    def losses(self, model: nn.Module, x: torch.Tensor) -> Losses:
        return Losses(task=functional.mse_loss(model(x), x))


@pytest.fixture
def save(tmp_path: Path) -> Any:
    def save(layer: nn.Module) -> Path:
        torch.save(Model(layer).state_dict(), tmp_path / "c.pt")
        return tmp_path / "c.pt"

    return save


def test_every_codebook_of_a_running_layer_has_its_own_histogram(save: Any) -> None:
    task = Task()
    model = task.model().eval()
    torch.save(model.state_dict(), path := save(nn.Identity()))
    report = examine(path, user_model=UserModel(task=task))
    assert [layer.name for layer in report.layers] == ["q[head 0]", "q[head 1]"]
    with torch.no_grad():
        own = torch.cat([model.q(model.encoder(x))[1] for x in task.batches("train")])
    for head in (0, 1):
        usage = report.usages(f"q[head {head}]")["batch"]
        assert usage.sample_size == 256 * 16
        assert usage.used == len(own[..., head].unique()) and usage.num_codes == 64


@pytest.mark.parametrize("axis", [1, 2])
def test_every_codebook_of_a_dump_has_its_own_histogram(save: Any, axis: int) -> None:
    codes = np.stack([RNG.integers(0, 64, (500, 16)), RNG.integers(0, 16, (500, 16))], axis=axis)
    report = examine(save(FSQ(levels=LEVELS, num_codebooks=2, dim=8)), data={"indices": codes})
    assert [u.used for name in ("vq[head 0]", "vq[head 1]") for u in report.usages(name).values()] == [64, 16]
    assert "how many codes vq has is unknown; its highest index makes it 64" in report.notes
    # codes that are never chosen do not show, so that it cannot be called healthy
    assert report.verdict == "inconclusive" and exit_code(report) == 3


def test_the_bits_of_a_lookup_free_layer_say_how_many_codes_there_are(save: Any) -> None:
    path = save(LFQ(codebook_size=256, dim=8))
    healthy = examine(path, data={"indices": RNG.integers(0, 256, (500, 16))})
    assert (healthy.verdict, healthy.layers[0].name, healthy.layers[0].num_codes) == ("healthy", "q", 256)
    collapsed = examine(path, data={"indices": RNG.integers(0, 3, (500, 16))})
    assert collapsed.verdict == "collapsed" and collapsed.findings[0].code == "VQ501"


def test_maps_of_codes_are_one_codebook_and_names_say_more(save: Any) -> None:
    path = save(FSQ(levels=LEVELS, dim=8))
    square = examine(path, data={"indices": RNG.integers(0, 64, (100, 4, 4))})
    assert [layer.name for layer in square.layers] == ["vq"]
    named = examine(path, data={"indices/a": RNG.integers(0, 64, 999), "indices/b": RNG.integers(0, 9, 999)})
    assert [layer.name for layer in named.layers] == ["a", "b"]
    with pytest.raises(UserError, match="no code indices"):
        examine(path, data={"indices": RNG.normal(size=99)})
