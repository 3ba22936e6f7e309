"""VQ408 live-codes-replaced just inside and just outside its limits, and on revivals of many kinds."""

from __future__ import annotations

import pytest
import torch
from judged import says
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from vector_quantize_pytorch import SimVQ, VectorQuantize

import vqdoctor
from vqdoctor.core.evidence import Evidence, LiveReplacement, TaskMetrics
from vqdoctor.core.report import Report

CODES, DIM = 32, 6

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([LiveReplacement.healthy(worst=0.21, mean=0.01)], "warning"),
        ([LiveReplacement.healthy(worst=0.20, mean=0.01)], "passes"),
        ([LiveReplacement.healthy(worst=0.9, mean=0.0051)], "warning"),
        ([LiveReplacement.healthy(worst=0.9, mean=0.0049)], "passes"),
        ([LiveReplacement.healthy(worst=0.9, mean=0.1), TaskMetrics.healthy(accuracy=0.5)], "error"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ408", *evidence) == expected


class Reviving(nn.Module):
    """A codebook trained by its loss, with a revival every few steps.

    Args:
        threshold: the usage under which a code is replaced, as a multiple of an even one.
        every: passes from one revival to the next.
        noise: whether a code is replaced by noise, and not by a vector.
        silent: whether it gives no indices.
    """

    def __init__(self, threshold: float, every: int, *, noise: bool = False, silent: bool = False) -> None:
        super().__init__()
        self.book = nn.Embedding(CODES, DIM)
        self.threshold, self.every, self.noise, self.silent = threshold, every, noise, silent
        self.register_buffer("usage", torch.full((CODES,), 1 / CODES))
        self.register_buffer("clock", torch.zeros(()))

    @torch.no_grad()
    def revive(self, z: torch.Tensor) -> None:
        low = self.usage < self.threshold / CODES
        fresh = torch.randn(CODES, DIM) if self.noise else z[torch.randint(len(z), (CODES,))]
        self.book.weight[low] = fresh[low]
        self.usage[low] = 1 / CODES

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        chosen = torch.cdist(z, self.book.weight).argmin(-1)
        z_q = self.book(chosen)
        loss = functional.mse_loss(z_q, z.detach()) + 0.25 * functional.mse_loss(z, z_q.detach())
        if self.training:
            with torch.no_grad():
                self.usage.lerp_(torch.bincount(chosen, minlength=CODES) / len(z), 0.05)
                self.clock += 1
                if self.clock % self.every == 0:
                    self.revive(z.detach())
        return z + (z_q - z).detach(), None if self.silent else chosen, loss


class Model(nn.Module):
    def __init__(self, vq: nn.Module) -> None:
        super().__init__()
        self.encoder, self.vq, self.decoder = nn.Linear(8, DIM), vq, nn.Linear(DIM, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.vq(self.encoder(x))
        return self.decoder(z_q), loss.sum()


def losses(model: Model, x: torch.Tensor) -> vqdoctor.Losses:
    made, vq = model(x)
    return vqdoctor.Losses(task=functional.mse_loss(made, x), vq=vq)


def examined(vq: nn.Module) -> Report:
    torch.manual_seed(0)
    model, x = Model(vq), torch.randn(4096, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for batch in x.split(256) * 8:
        optimizer.zero_grad()
        found = losses(model, batch)
        assert found.vq is not None
        (found.task + found.vq).backward()
        optimizer.step()
    return vqdoctor.examine(model, DataLoader(x[:2048], batch_size=256), losses=losses)


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize(
    ("threshold", "every", "noise", "fires"),
    [
        (CODES, 10, True, True),
        (CODES, 50, True, True),
        (CODES, 1, False, True),
        (0.1, 10, False, False),
        (0.1, 1, False, False),
    ],
    ids=["other units, at times", "seldom", "always", "dead codes, at times", "dead codes, always"],
)
def test_a_threshold_in_other_units(
    threshold: float, every: int, noise: bool, fires: bool, silent: bool
) -> None:
    report = examined(Reviving(threshold, every, noise=noise, silent=silent))
    found = {finding.code for finding in report.findings}
    assert bool(found & {"VQ408", "VQ402"}) is fires
    assert "VQ104" not in found


def test_a_librarys_revival_is_left_alone() -> None:
    report = examined(VectorQuantize(DIM, CODES, kmeans_init=True, threshold_ema_dead_code=2))
    live = report.find(LiveReplacement, "vq")
    assert live is not None and live.worst == 0 and live.sample_size > 20


def test_codes_that_are_computed_are_left_out() -> None:
    report = examined(SimVQ(DIM, CODES))
    assert not [outcome.code for outcome in report.outcomes if outcome.status == "crashed"]
    assert report.find(LiveReplacement, "vq") is None
