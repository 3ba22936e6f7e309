"""VQ506: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from judged import says
from torch import nn
from use_models import DIM, POSITIONS, Layer, Levels, Model, build_and_examine, found

from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import Evidence, LevelUse
from vqdoctor.core.levels import Severity
from vqdoctor.engine import examine

LEVEL = LevelUse.healthy()
SILENT = COLLAPSED_USAGE.replace(perplexity_high=1.49)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([LEVEL.replace(written=False, others_written=0)], "passes"),
        ([LEVEL.replace(written=False, others_written=1)], "warning"),
        ([LEVEL], "passes"),
        ([LEVEL.replace(written=None)], "cannot judge"),
        ([LEVEL.replace(left=0.049), SILENT], "note"),
        ([LEVEL.replace(left=0.051), SILENT], "warning"),
        ([LEVEL.replace(left=None), SILENT], "warning"),
        ([LEVEL, SILENT.replace(perplexity_high=1.51)], "passes"),
        ([LEVEL, SILENT.replace(effective_size=15.0)], "passes"),
        ([LEVEL.replace(level=1), SILENT], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ506", *evidence) == expected


def levels(stop: int | None = None, last: dict[str, Any] | None = None, codes: int = 16) -> nn.Module:
    return Model(Levels([Layer(codes), Layer(codes), Layer(codes, **(last or {}))], stop))


@pytest.mark.parametrize("stop", [3, 4])
def test_a_last_level_that_is_never_drawn(tmp_path: Path, stop: int) -> None:
    report = build_and_examine(tmp_path, lambda: levels(stop))
    at = [f.layer for f in report.findings if f.code == "VQ506"]
    assert at == (["vq.layers.2"] if stop == 3 else [])
    assert len(report.layers) == 3
    bare = examine(tmp_path / "model.pt")
    assert [f.layer for f in bare.findings if f.code == "VQ506"] == at


def test_a_file_of_the_first_moment_accuses_no_level(tmp_path: Path) -> None:
    assert found(build_and_examine(tmp_path, levels, steps=0), "VQ506") == {}


def test_a_level_that_gives_one_code_is_a_fault_where_something_is_left(tmp_path: Path) -> None:
    report = build_and_examine(tmp_path, lambda: levels(last={"at": 60.0}))
    assert [(f.layer, f.severity >= Severity.WARNING) for f in report.findings if f.code == "VQ506"] == [
        ("vq.layers.2", True)
    ]


def test_a_level_too_many_is_a_note(tmp_path: Path) -> None:
    """Twelve points and 64 codes a level that lie on them: the first leaves nothing to the second."""
    points = torch.randn(12, DIM, generator=torch.Generator().manual_seed(3))
    x = points[torch.randint(12, (480, POSITIONS), generator=torch.Generator().manual_seed(4))]

    def build() -> nn.Module:
        model = Model(Levels([Layer(64), Layer(64)]), nn.Identity())
        first, second = (layer._codebook for layer in model.vq.layers)
        first.embed[:12] = points
        second.embed[0] = 0.0
        for book in (first, second):
            book.embed_avg.copy_(book.embed)
        return model

    report = build_and_examine(tmp_path, build, x=x)
    assert found(report, "VQ506") == {"VQ506": Severity.NOTE}
