"""VQ604: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from judged import says
from torch import nn
from use_models import DIGITS, DIM, POSITIONS, Model, build_and_examine, found
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.core.evidence import CodeSequences, Evidence
from vqdoctor.engine import examine
from vqdoctor.reference.recipes import HEALTHY
from vqdoctor.reference.train import train

SEQUENCES = CodeSequences.healthy()

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([SEQUENCES.replace(constant_share=0.5)], "passes"),
        ([SEQUENCES.replace(constant_share=0.51)], "warning"),
        ([SEQUENCES.replace(same_share=0.95)], "passes"),
        ([SEQUENCES.replace(same_share=0.96)], "warning"),
        ([SEQUENCES.replace(same_share=0.96, length=7)], "cannot judge"),
        ([SEQUENCES.replace(same_share=0.96, length=8)], "warning"),
        ([SEQUENCES.replace(same_share=0.96, sequences=15)], "cannot judge"),
        ([SEQUENCES.replace(same_share=0.96, sequences=16)], "warning"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ604", *evidence) == expected


class OverTime(nn.Module):
    """A linear encoder that may average over time, or add a large position embedding."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.linear = nn.Linear(DIM, DIM)
        self.how = how
        self.positions = nn.Parameter(30 * torch.randn(POSITIONS, DIM))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.linear(x)
        if self.how == "average":
            return z.mean(1, keepdim=True).expand_as(z)
        return z + self.positions if self.how == "position" else z + 0 * self.positions


@pytest.mark.parametrize(
    ("how", "expected"), [("average", {"VQ604"}), ("position", {"VQ604"}), ("each", set())]
)
def test_a_frozen_sequence(tmp_path: Path, how: str, expected: set[str]) -> None:
    def build() -> nn.Module:
        codes = 12 if how == "position" else 64
        return Model(VectorQuantize(DIM, codes, decay=0.9, kmeans_init=True), OverTime(how))

    report = build_and_examine(tmp_path, build)
    assert set(found(report, "VQ604")) == expected
    if how == "average":
        (finding,) = (f for f in report.findings if f.code == "VQ604")
        assert {m.name: m.value for m in finding.measurements}["dwell"] == POSITIONS


def test_an_image_is_no_sequence(tmp_path: Path) -> None:
    result = train(replace(HEALTHY, epochs=1), dict(np.load(DIGITS)), 0)
    torch.save(dict(result.checkpoint), tmp_path / "model.pt")
    report = examine(tmp_path / "model.pt", data=DIGITS)
    (outcome,) = (o for o in report.outcomes if o.code == "VQ604")
    assert outcome.status == "skipped"
    assert "sequence" in (outcome.reason or "")
