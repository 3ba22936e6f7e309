"""VQ318 groups-share-input: limits, and a product quantizer whose groups get one part or each their own."""

from __future__ import annotations

import pytest
import torch
from judged import run_advice, says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import GroupInput

INPUT = GroupInput.healthy(read=1)
GROUPS, CODES, DIM = 3, 12, 4

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (INPUT, "warning"),
        (INPUT.replace(read=3), "warning"),
        (INPUT.replace(read=4), "passes"),
        (INPUT.replace(group=1), "passes"),
        (INPUT.replace(parts=1), "passes"),
        (INPUT.replace(parts=8), "passes"),
    ],
)
def test_limits(evidence: GroupInput, expected: str) -> None:
    assert says("VQ318", evidence) == expected


class Group(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CODES, dim)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = self.embedding(torch.cdist(z.detach(), self.embedding.weight.detach()).argmin(-1))
        loss = functional.mse_loss(codes, z.detach()) + functional.mse_loss(z, codes.detach())
        return z + (codes - z).detach(), loss


class Groups(nn.Module):
    """Groups on their own part, on the first part, or on the whole vector."""

    def __init__(self, on: str) -> None:
        super().__init__()
        self.on = on
        self.groups = nn.ModuleList(Group(GROUPS * DIM if on == "the whole" else DIM) for _ in range(GROUPS))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [z] * GROUPS if self.on == "the whole" else z.chunk(GROUPS, -1)
        parts = [parts[0]] * GROUPS if self.on == "the first part" else parts
        found = [group(part) for group, part in zip(self.groups, parts, strict=True)]
        z_q = torch.cat([z_q for z_q, _ in found], -1)
        return z_q[..., : GROUPS * DIM], torch.stack([loss for _, loss in found]).sum()


class Model(nn.Module):
    def __init__(self, on: str) -> None:
        super().__init__()
        self.encoder, self.quantizer = nn.Linear(10, GROUPS * DIM), Groups(on)
        self.decoder = nn.Linear(GROUPS * DIM, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss = self.quantizer(self.encoder(x))
        return self.decoder(z_q), loss


def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
    out, vq = model(x)
    return vqdoctor.Losses(task=functional.mse_loss(out, x), vq=vq)


@pytest.mark.parametrize(("on", "accused"), [("its own part", 0), ("the first part", 2), ("the whole", 0)])
def test_models(on: str, accused: int) -> None:
    torch.manual_seed(0)
    report = vqdoctor.examine(Model(on), torch.randn(60, 6, 10), losses=losses)
    assert len([f.layer for f in report.findings if f.code == "VQ318"]) == accused
    assert not [o for o in report.outcomes if o.status == "crashed"]


def test_the_advice_gives_every_group_its_own_part() -> None:
    z_e = torch.randn(3, GROUPS * DIM)
    groups = [lambda part, i=i: (part, i) for i in range(GROUPS)]
    found = run_advice("VQ318", z_e=z_e, groups=groups)["z_q"]
    assert isinstance(found, list) and torch.equal(torch.cat([part for part, _ in found], -1), z_e)
