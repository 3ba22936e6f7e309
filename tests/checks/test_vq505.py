"""VQ505: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judged import says
from torch import nn
from use_models import DIGITS, DIM, Layer, Model, Task, build_and_examine, found, trained
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.checks import all_checks
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import (
    DataMatch,
    EmaState,
    Evidence,
    Revival,
    StartRows,
    TrainForward,
    UnmovedRows,
)
from vqdoctor.core.levels import Confidence, Severity
from vqdoctor.engine import examine
from vqdoctor.engine.evaluate import evaluate
from vqdoctor.engine.rank import rank
from vqdoctor.reference.recipes import PLAIN
from vqdoctor.reference.train import encode, train
from vqdoctor.vq.codebook import Codebook
from vqdoctor.vq.revival import revive

REVIVAL = Revival.healthy()

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([REVIVAL.replace(undone=5)], "passes"),
        ([REVIVAL.replace(undone=6)], "warning"),
        ([REVIVAL.replace(returned=5)], "passes"),
        ([REVIVAL.replace(returned=6)], "warning"),
        ([REVIVAL.replace(sample_size=0, returned=6)], "warning"),
        ([REVIVAL.replace(sample_size=0, returned=1)], "note"),
        ([REVIVAL.replace(threshold=2.0, under_threshold=64)], "passes"),
        ([REVIVAL.replace(threshold=2.0, under_threshold=65)], "warning"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ505", *evidence) == expected


ANEW = UnmovedRows.healthy(rows=200, count=1.0)
OFF = DataMatch.healthy(mean_offset=42.0, quantization_error=1.0, nearest_data=438.0)
LATE = EmaState.healthy(updates=2000)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ([], "warning"),
        ([ANEW.replace(rows=128)], "passes"),
        ([ANEW.replace(rows=129)], "warning"),
        ([OFF.replace(nearest_data=2.9)], "passes"),
        ([OFF.replace(nearest_data=3.1)], "warning"),
        # z_e has collapsed: any distance is many of its standard deviations
        ([OFF.replace(data_std=1e-4 * OFF.data_rms)], "passes"),
        # the start can have left that count: 0.95^100 of all
        ([LATE.replace(updates=100, decay=None)], "passes"),
        ([ANEW.replace(count=1e-4)], "passes"),
        ([TrainForward.healthy(decay=None)], "passes"),
    ],
)
def test_a_revival_that_writes_codes_where_there_is_no_data(changed: list[Evidence], expected: str) -> None:
    given: list[Evidence] = [REVIVAL, ANEW, OFF, LATE.replace(decay=None), TrainForward.healthy(decay=0.95)]
    kinds = {type(item): item for item in (*given, *changed)}
    assert says("VQ505", *kinds.values()) == expected
    findings = rank(
        evaluate(all_checks(), ["vq"], [*kinds.values(), COLLAPSED_USAGE], []).findings, all_checks()
    )
    assert (findings[0].code == "VQ505") is (expected == "warning")


@pytest.mark.parametrize(
    ("revival", "root"),
    [
        (REVIVAL.replace(undone=16), "VQ505"),
        # a guess from the file alone explains no codes that were never chosen
        (REVIVAL.replace(source="checkpoint", sample_size=0, threshold=2.0, under_threshold=200), "VQ313"),
        (REVIVAL, "VQ313"),
    ],
)
def test_codes_that_no_vector_reached_hang_under_a_revival_that_passes_undo(
    revival: Revival, root: str
) -> None:
    left = [StartRows.healthy(), UnmovedRows.healthy(rows=204, offset=45.0), COLLAPSED_USAGE]
    findings = rank(evaluate(all_checks(), ["vq"], [revival, *left], []).findings, all_checks())
    assert findings[0].code == root
    assert [f.explained_by for f in findings if f.code == "VQ313"] == [
        f"{root}:vq" if root == "VQ505" else None
    ]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"threshold": 2.0, "whole": False}, {"VQ505"}),
        ({"threshold": 2.0, "whole": True}, set()),
        ({"threshold": 0.0}, set()),
    ],
)
def test_a_revival_that_the_ema_undoes(tmp_path: Path, how: dict[str, Any], expected: set[str]) -> None:
    report = build_and_examine(tmp_path, lambda: Model(Layer(256, **how)))
    assert set(found(report, "VQ505")) == expected
    if expected:
        (finding,) = (f for f in report.findings if f.code == "VQ505")
        assert finding.confidence is Confidence.HIGH
        assert finding.measurements[0].value > 0.5
        bare = examine(tmp_path / "model.pt")
        assert found(bare, "VQ505") == {}, "nothing in the file says that codes were to be replaced"


def test_a_recorded_threshold_makes_a_bare_file_suspect(tmp_path: Path) -> None:
    for whole, expected in ((False, {"VQ505": Severity.WARNING}), (True, {})):
        model = trained(Task(lambda whole=whole: Model(Layer(256, threshold=2.0, whole=whole))))
        saved = {"model": model.state_dict(), "config": {"threshold_ema_dead_code": 2}}
        torch.save(saved, tmp_path / "model.pt")
        report = examine(tmp_path / "model.pt")
        assert found(report, "VQ505") == expected
        guesses = [f for f in report.findings if f.code == "VQ505"]
        assert all(f.confidence is Confidence.LOW and "--data" in f.decide_with for f in guesses)


@pytest.mark.parametrize("threshold", [0, 2])
def test_the_library_revives_for_good(tmp_path: Path, threshold: int) -> None:
    def build() -> nn.Module:
        return Model(VectorQuantize(DIM, 256, decay=0.95, threshold_ema_dead_code=threshold))

    assert found(build_and_examine(tmp_path, build, probe_steps=12), "VQ505") == {}


@pytest.mark.parametrize("with_sums", [True, False])
def test_a_training_loop_that_revives_the_codes_alone(tmp_path: Path, with_sums: bool) -> None:
    data = dict(np.load(DIGITS))
    result = train(replace(PLAIN, epochs=3), data, 0)
    vq = result.model.vq
    assert vq is not None
    images, _ = result.task.data["train"]
    with torch.no_grad():
        usage = torch.bincount(result.model(images)["indices"].flatten(), minlength=256)
    revive(
        vq.codebook if with_sums else Codebook(codes=vq.embedding),
        usage=usage.double(),
        vectors=encode(result.model, images),
        generator=torch.Generator().manual_seed(0),
    )
    torch.save(dict(result.checkpoint), tmp_path / "model.pt")
    expected = {} if with_sums else {"VQ505": Severity.WARNING}
    for given in (None, DIGITS):
        assert found(examine(tmp_path / "model.pt", data=given), "VQ505") == expected
