"""VQ506: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from judged import says
from torch import nn
from use_models import DIM, POSITIONS, Layer, Levels, Model, build_and_examine, found

from vqdoctor.checks import all_checks
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.checks.vq506_residual_level_unused import CONSEQUENCES
from vqdoctor.core.evidence import Evidence, Flattening, LevelUse
from vqdoctor.core.levels import Severity
from vqdoctor.engine import examine
from vqdoctor.engine.evaluate import evaluate
from vqdoctor.engine.rank import rank

LEVEL = LevelUse.healthy()
SILENT = COLLAPSED_USAGE.replace(perplexity_high=1.49)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([LEVEL.replace(written=False, others_written=0)], "passes"),
        ([LEVEL.replace(written=False, others_written=1)], "warning"),
        ([LEVEL.replace(written=False, others_written=0, placed=True)], "passes"),
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


@pytest.mark.parametrize(
    ("last", "named"),
    [
        ([16.0, 245.0] * 8, True),  # as k-means counts
        ([15.2, 231.7] * 8, False),  # the same after an update
        ([2.0] * 16, False),  # a revival of all codes sets its threshold
    ],
)
def test_a_last_level_that_the_first_evaluation_placed(
    tmp_path: Path, last: list[float], named: bool
) -> None:
    model = levels()
    for layer, counts in zip(model.vq.layers, ([7.3, 20.1] * 8, [5.5, 21.9] * 8, last), strict=True):
        layer._codebook.cluster_size.copy_(torch.tensor(counts))
        layer._codebook.embed_avg.copy_(layer._codebook.embed * torch.tensor(counts)[:, None])
    torch.save(model.state_dict(), tmp_path / "model.pt")
    report = examine(tmp_path / "model.pt")
    at = [f.layer for f in report.findings if f.code == "VQ506"]
    assert at == (["vq.layers.2"] if named else [])


def test_a_level_without_training_is_no_symptom_of_the_wrong_axis() -> None:
    untrained = [LEVEL.replace(written=False), COLLAPSED_USAGE]
    cut = Flattening.healthy(equal=0.1, equal_as_stored=1.0)
    findings = rank(evaluate(all_checks(), ["vq"], [*untrained, cut], []).findings, all_checks())
    assert [f.code for f in findings if f.explained_by is None] == ["VQ105", "VQ506"]
    assert {f.explained_by for f in findings if f.code in CONSEQUENCES} == {"VQ506:vq"}


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
