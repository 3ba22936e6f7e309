"""VQ320 ema-forgets just inside and just outside its limit, and on an EMA whose weights are swapped."""

from __future__ import annotations

import pytest
import torch
from judged import says
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import vqdoctor
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import CodeExpiry, EmaState, Evidence, TaskMetrics, TrainForward, Usage

BATCH = CodeExpiry.healthy(sample_size=100, vectors=100.0)
LOST = TaskMetrics.healthy(accuracy=0.4)
CODES, DIM = 128, 4

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([COLLAPSED_USAGE, BATCH, TrainForward.healthy(decay=0.33)], "warning"),
        ([COLLAPSED_USAGE, BATCH.replace(vectors=64.0), TrainForward.healthy(decay=0.51)], "warning"),
        ([COLLAPSED_USAGE, BATCH.replace(vectors=66.0), TrainForward.healthy(decay=0.51)], "passes"),
        ([COLLAPSED_USAGE, BATCH, TrainForward.healthy(decay=0.33), LOST], "error"),
        ([COLLAPSED_USAGE, BATCH, EmaState.healthy(decay=0.33)], "warning"),
        ([COLLAPSED_USAGE, BATCH, EmaState.healthy(decay=0.99), TrainForward.healthy(decay=0.33)], "warning"),
        ([COLLAPSED_USAGE, BATCH, EmaState.healthy(decay=None)], "cannot judge"),
        # codes in use, each the mean of a few vectors of the newest batch
        ([Usage.healthy(), BATCH.replace(vectors=333.0), TrainForward.healthy(decay=0.5)], "warning"),
        ([Usage.healthy(), BATCH.replace(vectors=334.0), TrainForward.healthy(decay=0.5)], "passes"),
        ([Usage.healthy(), BATCH, TrainForward.healthy(decay=0.51)], "passes"),
        ([Usage.healthy(), BATCH, TrainForward.healthy(decay=0.0)], "warning"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ320", *evidence) == expected


class Table(nn.Module):
    """An EMA that gives a new batch some weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.register_buffer("embed", torch.randn(CODES, DIM))
        self.register_buffer("n", torch.ones(CODES))
        self.register_buffer("s", self.embed.clone())

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.cdist(z, self.embed).argmin(-1)
        if self.training:
            with torch.no_grad():
                ones = functional.one_hot(chosen, CODES).to(z)
                self.n.lerp_(ones.sum(0), self.weight)
                self.s.lerp_(ones.T @ z, self.weight)
                self.embed.copy_(self.s / (self.n + 1e-5)[:, None])
        return z + (self.embed[chosen] - z).detach(), chosen


class Model(nn.Module):
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.encoder, self.vq, self.decoder = nn.Linear(6, DIM), Table(weight), nn.Linear(DIM, 6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x)
        z_q, _ = self.vq(z)
        return self.decoder(z_q), functional.mse_loss(z, z_q.detach())


def losses(model: Model, x: torch.Tensor) -> vqdoctor.Losses:
    made, vq = model(x)
    return vqdoctor.Losses(task=functional.mse_loss(made, x), vq=0.25 * vq)


@pytest.mark.parametrize(("weight", "fires"), [(0.99, True), (0.01, False)])
def test_the_weight_of_the_old_batches_given_to_the_new_one(weight: float, fires: bool) -> None:
    torch.manual_seed(0)
    model, x = Model(weight), torch.randn(4096, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for batch in x.split(32) * 3:
        optimizer.zero_grad()
        found = losses(model, batch)
        assert found.vq is not None
        (found.task + found.vq).backward()
        optimizer.step()
    report = vqdoctor.examine(model, DataLoader(x[:768], batch_size=32), losses=losses)
    found_codes = [finding.code for finding in report.findings]
    assert ("VQ320" in found_codes) is fires
    if fires:
        assert found_codes[0] == "VQ320"
