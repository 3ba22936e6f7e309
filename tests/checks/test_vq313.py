"""VQ313 codes-left-at-start just inside and just outside its limits, and on a codebook that torch drew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from judged import says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import (
    CodebookGeometry,
    DataMatch,
    EmaState,
    EncoderSpread,
    Evidence,
    StartRows,
    UnmovedRows,
    Usage,
)

START = StartRows.healthy(sample_size=1000, start="U(±1/1,000)")
HEALTHY = StartRows.healthy()
FEW_USED = Usage.healthy(
    num_codes=1000, used=1000, active=900, expected_used=1000.0, expected_active=1000.0, perplexity=9.0,
    perplexity_high=9.2,
)  # fmt: skip
"""Poor usage, though most codes are active."""
MOSTLY_DEAD = Usage.healthy(
    num_codes=1000, used=450, active=390, expected_used=1000.0, expected_active=1000.0, perplexity=210.0,
    perplexity_high=212.0,
)  # fmt: skip
UNMOVED = UnmovedRows.healthy(rows=204, offset=4.1, structure=50.0)
EMA = EmaState.healthy(total=16_384.0, decay=0.95, updates=200)
NOISE = UNMOVED.replace(offset=0.4, structure=5.9)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([START.replace(rows=599)], "passes"),
        ([START.replace(rows=600)], "warning"),
        ([START.replace(rows=699)], "warning"),
        ([START.replace(rows=700)], "error"),
        ([START.replace(rows=999)], "error"),
        ([START.replace(rows=1000)], "cannot judge"),
        ([START.replace(rows=900, frozen=True)], "cannot judge"),
        ([START.replace(rows=900, by_logits=True)], "cannot judge"),
        ([START.replace(rows=900), EncoderSpread.healthy(output_spread=1e-3)], "cannot judge"),
        # half of the dead codes, where these are more than six of ten codes
        ([START.replace(rows=306), MOSTLY_DEAD], "warning"),
        ([START.replace(rows=304), MOSTLY_DEAD], "passes"),
        ([START.replace(rows=306), FEW_USED], "passes"),
        ([START.replace(rows=0), FEW_USED.replace(active=1000)], "passes"),
        # never chosen in the whole training: half of the dead codes (256 - 1), far away or on noise
        ([HEALTHY, UNMOVED.replace(rows=128), COLLAPSED_USAGE], "warning"),
        ([HEALTHY, UNMOVED.replace(rows=127), COLLAPSED_USAGE], "passes"),
        ([HEALTHY, UNMOVED, Usage.healthy()], "passes"),
        ([HEALTHY, UNMOVED.replace(offset=3.9), COLLAPSED_USAGE], "passes"),
        ([HEALTHY, NOISE, COLLAPSED_USAGE], "passes"),
        ([HEALTHY, NOISE, COLLAPSED_USAGE, DataMatch.healthy(dim=64, data_effective_rank=31.0)], "warning"),
        ([HEALTHY, NOISE, COLLAPSED_USAGE, DataMatch.healthy(dim=64, data_effective_rank=33.0)], "passes"),
        ([HEALTHY, NOISE.replace(structure=6.1), COLLAPSED_USAGE, DataMatch.healthy()], "passes"),
        # copies of one another are no noise
        ([HEALTHY, UNMOVED, COLLAPSED_USAGE, CodebookGeometry.healthy(duplicate_rows=102)], "warning"),
        ([HEALTHY, UNMOVED, COLLAPSED_USAGE, CodebookGeometry.healthy(duplicate_rows=103)], "passes"),
        # of counts that began at 16,384 in all, 0.95^200 is left: 0.57, and no more than ten times that
        ([HEALTHY, UNMOVED.replace(count=5.7), COLLAPSED_USAGE, EMA], "warning"),
        ([HEALTHY, UNMOVED.replace(count=5.8), COLLAPSED_USAGE, EMA], "passes"),
        ([HEALTHY, UNMOVED.replace(count=5.8), COLLAPSED_USAGE, EMA.replace(decay=None)], "warning"),
        ([HEALTHY, UNMOVED.replace(count=5.8), COLLAPSED_USAGE, EMA.replace(updates=None)], "warning"),
        # after many updates: what smoothing with 1e-5 that is written back holds, 0.0002
        ([HEALTHY, UNMOVED.replace(count=0.0019), COLLAPSED_USAGE, EMA.replace(updates=2000)], "warning"),
        ([HEALTHY, UNMOVED.replace(count=0.0021), COLLAPSED_USAGE, EMA.replace(updates=2000)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ313", *evidence) == expected


class Autoencoder(nn.Module):
    """A gradient-trained codebook, drawn as its library draws it, or placed in the data."""

    def __init__(self, start: str) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(20, 8), nn.Linear(8, 20)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(256, 8)  # N(0, 1)
        self.quantize.forward = self.look_up  # type: ignore[method-assign]
        if start == "narrow":
            nn.init.uniform_(self.quantize.embedding.weight, -1 / 256, 1 / 256)

    def look_up(self, z_e: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = self.quantize.embedding.weight
        z_q = functional.embedding(torch.cdist(z_e, codes).argmin(1), codes)
        loss = functional.mse_loss(z_q, z_e.detach()) + 0.25 * functional.mse_loss(z_e, z_q.detach())
        return z_e + (z_q - z_e).detach(), loss

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss = self.quantize(self.encoder(x))
        return self.decoder(z_q), loss


def train(start: str, path: Path) -> None:
    torch.manual_seed(0)
    model = Autoencoder(start)
    data = torch.randn(512, 5) @ torch.randn(5, 20) * 2 + 3
    if start == "placed":
        with torch.no_grad():
            model.quantize.embedding.weight.copy_(model.encoder(data[:256]))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(200):
        batch = data[torch.randint(0, 512, (64,))]
        reconstruction, loss = model(batch)
        optimizer.zero_grad()
        (functional.mse_loss(reconstruction, batch) + loss).backward()
        optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)


@pytest.mark.parametrize(("start", "drawn"), [("narrow", "U(±1/256)"), ("wide", "N(0, 1)"), ("placed", None)])
def test_a_bare_file_names_the_start(start: str, drawn: str | None, tmp_path: Path) -> None:
    train(start, tmp_path / "model.pt")
    report = vqdoctor.examine(tmp_path / "model.pt")
    found = [finding for finding in report.findings if finding.code == "VQ313"]
    assert bool(found) is (drawn is not None)
    if drawn:
        assert drawn in found[0].message and report.roots()[0].code == "VQ313"
