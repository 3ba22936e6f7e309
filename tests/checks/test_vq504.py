"""VQ504: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from judged import says
from torch import nn
from torch.nn import functional
from use_models import DIM, POSITIONS, Model, build_and_examine, found
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.core.evidence import CodebookGeometry, DataMatch, Evidence, ImplicitLevels, ResidualLevel

NARROW = CodebookGeometry.healthy(effective_rank=3.0)
LOSING = DataMatch.healthy(data_effective_rank=7.0, quantization_error=0.44)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # a channel that stays at one level
        ([ImplicitLevels.healthy(used=(8, 2, 5))], "passes"),
        ([ImplicitLevels.healthy(used=(8, 1, 5))], "warning"),
        # what is left for a deep level lies in all directions
        ([NARROW, LOSING], "warning"),
        ([NARROW, LOSING, ResidualLevel.healthy(level=1)], "warning"),
        ([NARROW, LOSING, ResidualLevel.healthy(level=2)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ504", *evidence) == expected


class Mapped(nn.Module):
    """Codes that a linear map of some rank makes of a table; the product is what is stored."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.register_buffer("embedding", torch.zeros(64, DIM))
        self.left = nn.Parameter(torch.randn(64, rank))
        self.right = nn.Parameter(torch.randn(rank, DIM))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        codebook = self.left @ self.right
        self.embedding.copy_(codebook.detach())
        chosen = torch.cdist(z.detach(), codebook.detach().expand(len(z), -1, -1)).argmin(-1)
        codes = codebook[chosen]
        loss = functional.mse_loss(codes, z.detach()) + 0.25 * functional.mse_loss(z, codes.detach())
        return z + (codes - z).detach(), chosen, loss


@pytest.mark.parametrize(("rank", "fires"), [(1, True), (2, True), (DIM, False)])
def test_codes_of_low_rank(tmp_path: Path, rank: int, fires: bool) -> None:
    report = build_and_examine(tmp_path, lambda: Model(Mapped(rank), nn.Identity()), steps=300)
    assert ("VQ504" in found(report)) is fires


def test_codes_of_low_rank_for_data_of_low_rank_are_healthy(tmp_path: Path) -> None:
    flat = torch.randn(480, POSITIONS, 2, generator=torch.Generator().manual_seed(8))
    x = torch.cat([2 * flat, torch.zeros(480, POSITIONS, DIM - 2)], dim=2)

    def build() -> nn.Module:
        return Model(VectorQuantize(DIM, 64, decay=0.9, kmeans_init=True), nn.Identity())

    assert found(build_and_examine(tmp_path, build, x=x), "VQ504") == {}
