"""VQ305: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from pathlib import Path

import pytest
from judged import run_advice, says
from state_models import OURS, EmaVQ, Task, found, live, saved
from torch import nn

from vqdoctor.checks import all_checks
from vqdoctor.core.evidence import EvalForward, Evidence, Initialisation, TrainForward
from vqdoctor.core.levels import Severity
from vqdoctor.engine import examine
from vqdoctor.engine.evaluate import evaluate
from vqdoctor.engine.rank import rank

START = Initialisation.healthy()
TRAIN = TrainForward.healthy()
FRESH = START.replace(counts_written=False, stepped=None, updates=None, structure=0.7)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # far once; not where the start is still to come, or the EMA makes its first step
        ([TRAIN.replace(first_moved=0.51)], "error"),
        ([TRAIN.replace(first_moved=0.49)], "passes"),
        ([TRAIN.replace(first_moved=1.0, later_moved=0.5)], "error"),
        ([TRAIN.replace(first_moved=1.0, later_moved=0.51)], "passes"),
        # a codebook of almost no extent, behind a dead encoder: every pass moves its codes by many radii
        ([TRAIN.replace(first_moved=36.0, later_moved=6.8)], "passes"),
        ([TRAIN.replace(first_moved=1.3), START.replace(flag=False)], "cannot judge"),
        ([TRAIN.replace(first_moved=1.3), FRESH], "cannot judge"),
        ([TRAIN.replace(first_moved=1.3, writes_counts=None), START.replace(counts_written=None)], "error"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ305", *evidence) == expected


@pytest.mark.parametrize("flag_saved", [False, True])
def test_a_flag_that_is_not_saved(tmp_path: Path, flag_saved: bool) -> None:
    task = Task(lambda: EmaVQ(own_init=True, flag_saved=flag_saved))
    report = live(saved(tmp_path, task, 120), task)
    assert found(report, *OURS) == ({} if flag_saved else {"VQ305": Severity.ERROR})
    assert found(examine(tmp_path / "model.pt"), *OURS) == {}  # an attribute of a class is in no file


def test_a_flag_in_a_buffer_is_saved() -> None:
    vq = nn.Module()
    run_advice("VQ305", vq=vq)
    assert bool(vq.state_dict()["initted"])


@pytest.mark.parametrize(("again", "cause"), [(None, "VQ305:vq"), (False, "VQ305:vq"), (True, None)])
def test_a_second_initialisation_explains_that_an_eval_pass_writes_once(
    again: bool | None, cause: str | None
) -> None:
    eval_pass = EvalForward.healthy(
        changed=("vq.embed", "vq.initted"), changed_count=2, codebook=True, again=again
    )
    evidence = [TRAIN.replace(first_moved=1.3), eval_pass]
    findings = rank(evaluate(all_checks(), ["vq"], evidence, []).findings, all_checks())
    assert [(f.code, f.explained_by) for f in findings] == [("VQ305", None), ("VQ307", cause)]
