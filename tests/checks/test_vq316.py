"""VQ316 groups-share-indices: limits, and groups of several styles with own and with shared indices."""

from __future__ import annotations

import pytest
import torch
from judged import run_advice, says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import GroupChoice

CHOICE = GroupChoice.healthy(same=1.0, nearest=0.1)
GROUPS, CODES, DIM = 3, 12, 4

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (CHOICE.replace(same=0.991), "error"),
        (CHOICE.replace(same=0.98), "passes"),
        (CHOICE.replace(nearest=0.89), "error"),
        (CHOICE.replace(nearest=0.91), "passes"),
        # where the first group does not choose its nearest code either, another fault is at work
        (CHOICE.replace(first_nearest=0.8), "passes"),
        (CHOICE.replace(group=1), "passes"),
    ],
)
def test_limits(evidence: GroupChoice, expected: str) -> None:
    assert says("VQ316", evidence) == expected


class OneTensor(nn.Module):
    """All codebooks in one tensor [groups, K, D]."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.codebooks, self.shared = nn.Parameter(torch.randn(GROUPS, CODES, DIM)), shared

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        parts = z.unflatten(-1, (GROUPS, DIM)).flatten(0, 1)
        chosen = torch.cdist(parts.transpose(0, 1), self.codebooks).argmin(-1)
        chosen = chosen[:1].expand_as(chosen) if self.shared else chosen
        codes = torch.stack([table[i] for table, i in zip(self.codebooks, chosen, strict=True)], 1)
        loss = functional.mse_loss(codes, parts.detach()) + 0.25 * functional.mse_loss(parts, codes.detach())
        z_q = (parts + (codes - parts).detach()).reshape(z.shape)
        return z_q, loss, chosen.T.reshape(*z.shape[:-1], GROUPS)


class Unnamed(nn.Module):
    """One tensor under a name that says nothing, [G, K, D] or [K, G, D], and no indices."""

    def __init__(self, *, shared: bool, axis: int) -> None:
        super().__init__()
        shape = [CODES, DIM]
        shape.insert(axis, GROUPS)
        self.C, self.shared, self.axis = nn.Parameter(torch.randn(shape)), shared, axis

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tables, parts = self.C.movedim(self.axis, 0), z.unflatten(-1, (GROUPS, DIM)).flatten(0, -3)
        chosen = torch.cdist(parts.transpose(0, 1), tables).argmin(-1)
        chosen = chosen[:1].expand_as(chosen) if self.shared else chosen
        codes = tables[torch.arange(GROUPS)[:, None], chosen].transpose(0, 1)
        loss = functional.mse_loss(codes, parts.detach()) + 0.25 * functional.mse_loss(parts, codes.detach())
        return (parts + (codes - parts).detach()).reshape(z.shape), loss


class Group(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CODES, DIM)

    def forward(
        self, z: torch.Tensor, chosen: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if chosen is None:
            chosen = torch.cdist(z.detach(), self.embedding.weight.detach()).argmin(-1)
        codes = self.embedding(chosen)
        loss = functional.mse_loss(codes, z.detach()) + functional.mse_loss(z, codes.detach())
        return z + (codes - z).detach(), loss, chosen


class OneModuleEach(nn.Module):
    """Every group is a module with its own embedding."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.groups, self.shared = nn.ModuleList(Group() for _ in range(GROUPS)), shared

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found, chosen = [], None
        for group, part in zip(self.groups, z.chunk(GROUPS, -1), strict=True):
            found.append(group(part, chosen))
            chosen = found[0][2] if self.shared else None
        return torch.cat([z_q for z_q, _, _ in found], -1), torch.stack([loss for _, loss, _ in found]).sum()


class Model(nn.Module):
    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.encoder, self.quantizer = nn.Linear(10, GROUPS * DIM), quantizer
        self.decoder = nn.Linear(GROUPS * DIM, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss, *_ = self.quantizer(self.encoder(x))
        return self.decoder(z_q), loss


def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
    out, vq = model(x)
    return vqdoctor.Losses(task=functional.mse_loss(out, x), vq=vq)


@pytest.mark.parametrize("style", [OneTensor, OneModuleEach])
@pytest.mark.parametrize("shared", [False, True])
def test_models(style: type[nn.Module], shared: bool) -> None:
    torch.manual_seed(0)
    report = vqdoctor.examine(Model(style(shared=shared)), torch.randn(300, 6, 10), losses=losses)
    accused = [f.layer for f in report.findings if f.code == "VQ316"]
    assert len(accused) == (GROUPS - 1 if shared else 0)
    assert not [o for o in report.outcomes if o.status == "crashed"]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shared", [False, True])
def test_tables_that_no_name_gives_away(axis: int, shared: bool) -> None:
    torch.manual_seed(0)
    model = Model(Unnamed(shared=shared, axis=axis))
    report = vqdoctor.examine(model, torch.randn(300, 10), losses=losses)
    assert [layer.name for layer in report.layers] == [f"quantizer[head {i}]" for i in range(GROUPS)]
    accused = [f.layer for f in report.findings if f.code == "VQ316"]
    assert len(accused) == (GROUPS - 1 if shared else 0)
    assert not [o for o in report.outcomes if o.status == "crashed"]


def test_the_advice_looks_up_every_group_in_its_own_codebook() -> None:
    parts, codebooks = torch.randn(GROUPS, 20, DIM), torch.randn(GROUPS, CODES, DIM)
    found = run_advice("VQ316", parts=parts, codebooks=codebooks)["indices"]
    assert isinstance(found, torch.Tensor)
    for group in range(GROUPS):
        distance = (parts[group][:, None] - codebooks[group]).square().sum(-1)
        assert torch.equal(found[group], distance.argmin(1))
