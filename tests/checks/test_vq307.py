"""VQ307: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from judged import run_advice, says
from state_models import OURS, EmaVQ, Task, found, live, saved

from vqdoctor.core.evidence import DataMatch, EvalForward, Evidence, TaskMetrics, Usage
from vqdoctor.core.levels import Severity

EVAL = EvalForward.healthy()

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # only a codebook is worth more than a note
        ([EVAL.replace(changed=("vq.counts",), changed_count=1)], "note"),
        ([EVAL.replace(changed=("vq.embed",), changed_count=1, codebook=True)], "error"),
        ([EVAL.replace(layer=None, changed=("steps",), changed_count=1)], "note"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ307", *evidence) == expected


@pytest.mark.parametrize("writes", ["all", "counts", ""])
def test_what_changes_in_eval_mode(tmp_path: Path, writes: str) -> None:
    task = Task(lambda: EmaVQ(own_init=True, eval_writes=writes))
    report = live(saved(tmp_path, task, 120), task)
    severity = {"all": Severity.ERROR, "counts": Severity.NOTE}
    assert found(report, *OURS) == ({"VQ307": severity[writes]} if writes else {})


@pytest.mark.parametrize("training", [True, False])
def test_the_guard_lets_the_ema_run_in_training_only(training: bool) -> None:
    counts = torch.ones(3)
    vq = SimpleNamespace(training=training)
    run_advice("VQ307", vq=vq, counts=counts, n=torch.tensor([4.0, 0.0, 0.0]), decay=0.9)
    assert torch.equal(counts, torch.ones(3)) is not training


def test_a_layer_that_trains_in_evaluation_is_measured_as_the_file_has_it(tmp_path: Path) -> None:
    """The many batches of an eval-mode pass meet the codes of the file, and not those that the pass wrote."""
    guarded = Task(EmaVQ)
    path = saved(tmp_path, guarded, 20)
    sound, moving = (live(path, task) for task in (guarded, Task(lambda: EmaVQ(eval_writes="all"))))
    assert found(moving, "VQ307") and not found(sound, "VQ307")
    for kind in (Usage, DataMatch, TaskMetrics):
        layer = None if kind is TaskMetrics else "vq"
        assert moving.find(kind, layer) == sound.find(kind, layer)
        assert sound.find(kind, layer) is not None
