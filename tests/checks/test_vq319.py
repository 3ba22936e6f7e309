"""VQ319 codebook-not-saved: models whose codes are in no state dict, beside those that can do without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from judged import run_advice, says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import UnsavedTable
from vqdoctor.core.settings import UserModel
from vqdoctor.engine import examine

CODES, DIM = 24, 6

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (UnsavedTable.healthy(), "passes"),
        (UnsavedTable.healthy(tables=("vq.codes",), codes=CODES, dim=DIM), "error"),
        (UnsavedTable.healthy(tables=("vq.codes",), codes=CODES, dim=DIM, buffer=True), "error"),
    ],
)
def test_limits(evidence: UnsavedTable, expected: str) -> None:
    assert says("VQ319", evidence) == expected


class Quantizer(nn.Module):
    """A codebook that is kept in one way or another."""

    def __init__(self, kept: str) -> None:
        super().__init__()
        codes = torch.randn(CODES, DIM)
        if kept == "of a fixed seed":
            codes = torch.randn(CODES, DIM, generator=torch.Generator().manual_seed(3))
        if kept == "computed":
            self.codes_v = nn.Parameter(codes)
        if kept in ("attribute", "computed"):
            self.codes = codes
        else:
            persistent = kept in ("saved", "beside another table")
            self.register_buffer("codes", codes, persistent=persistent)
        if kept == "refilled":
            self.drawn = nn.Parameter(torch.randn(CODES, DIM))
        if kept == "filled at the load":
            self.register_load_state_dict_post_hook(lambda module, keys: None)
        if kept == "beside another table":
            self.register_buffer("noise", torch.randn(CODES, DIM), persistent=False)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if hasattr(self, "drawn"):  # a work buffer
            self.codes.copy_(functional.normalize(self.drawn.detach(), dim=1))
        codes = self.codes[torch.cdist(z, self.codes).argmin(-1)]
        return z + (codes - z).detach(), functional.mse_loss(z, codes) * self.scale.detach()


class Model(nn.Module):
    def __init__(self, kept: str, *, inline: bool = False) -> None:
        super().__init__()
        self.encoder, self.quantizer = nn.Linear(10, DIM), Quantizer(kept)
        self.decoder = nn.Linear(DIM, 10)
        self.inline = inline

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x.flatten(0, 1))
        if self.inline:
            z_q, loss = type(self.quantizer).forward(self.quantizer, z)
        else:
            z_q, loss = self.quantizer(z)
        return self.decoder(z_q).view_as(x), loss


class Grouped(nn.Module):
    """Two groups whose codes are one tensor [H, K, D]."""

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randn(2, CODES, DIM // 2), persistent=persistent)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = z.view(-1, 2, DIM // 2)
        chosen = (parts[:, :, None] - self.codes[None]).square().sum(-1).argmin(-1)
        codes = torch.stack([self.codes[h][chosen[:, h]] for h in range(2)], dim=1).flatten(1)
        return z + (codes - z).detach(), functional.mse_loss(z, codes)


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("persistent", [False, True])
def test_groups_in_one_tensor(tmp_path: Path, inline: bool, persistent: bool) -> None:
    torch.manual_seed(0)
    task = GroupedTask("saved" if persistent else "buffer", inline=inline)
    torch.save(task.model().state_dict(), tmp_path / "model.pt")
    report = examine(tmp_path / "model.pt", user_model=UserModel(task=task))
    told = [f.message for f in report.findings if f.code == "VQ319"]
    assert len(told) == (not persistent)
    assert all("quantizer.codes (48 × 3)" in message for message in told)


class Task:
    vq_weight = 0.25

    def __init__(self, kept: str, *, inline: bool = False) -> None:
        self.kept, self.inline = kept, inline
        self.x = torch.randn(64, 8, 10, generator=torch.Generator().manual_seed(1))

    def model(self) -> nn.Module:
        return Model(self.kept, inline=self.inline)

    def batches(self, split: str) -> Iterator[torch.Tensor]:
        return iter(self.x.split(16))

    def losses(self, model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
        out, vq = model(x)
        return vqdoctor.Losses(task=functional.mse_loss(out, x), vq=vq)


class GroupedTask(Task):
    def model(self) -> nn.Module:
        model = Model(self.kept, inline=self.inline)
        model.quantizer = Grouped(self.kept == "saved")
        return model


@pytest.mark.parametrize(
    ("kept", "inline", "name"),
    [
        ("buffer", False, "a buffer with persistent=False"),
        ("buffer", True, "a buffer with persistent=False"),
        ("attribute", False, "a plain attribute"),
        ("saved", False, ""),
        ("computed", False, ""),
        ("of a fixed seed", False, ""),
        ("of a fixed seed", True, ""),
        ("filled at the load", False, ""),
        ("refilled", False, ""),
        ("refilled", True, ""),
        ("beside another table", False, ""),
    ],
)
def test_models(tmp_path: Path, kept: str, inline: bool, name: str) -> None:
    torch.manual_seed(0)
    task = Task(kept, inline=inline)
    torch.save(task.model().state_dict(), tmp_path / "model.pt")
    report = examine(tmp_path / "model.pt", user_model=UserModel(task=task))
    assert not [o for o in report.outcomes if o.status == "crashed"]
    told = [f.message for f in report.findings if f.code == "VQ319"]
    assert len(told) == bool(name)
    assert inline or [layer.num_codes for layer in report.layers] == [CODES]
    assert all(name in message and "quantizer.codes" in message for message in told)


def test_the_advice_puts_the_codes_into_the_state_dict() -> None:
    module = nn.Module()
    run_advice("VQ319", self=module, codes=torch.randn(CODES, DIM))
    assert "codes" in module.state_dict()
