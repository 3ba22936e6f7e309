"""VQ308: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from judged import problems, run_advice, says
from state_models import OURS, GradientVQ, Task, found, live, saved
from torch import nn

from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import CodebookGeometry, Evidence, TaskMetrics, Usage, WeightDecay
from vqdoctor.core.levels import Confidence
from vqdoctor.engine import Settings, UserModel, examine
from vqdoctor.engine.retrain import retrain

DECAY = WeightDecay.healthy()
CRUSHED = DECAY.replace(lost=1.0, learning_rate=2e-3)
UNDONE = TaskMetrics.healthy(accuracy=0.11, bypass_accuracy=0.11)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([DECAY.replace(lost=0.51), COLLAPSED_USAGE], "warning"),
        ([DECAY.replace(lost=0.51), Usage.healthy()], "note"),
        ([DECAY.replace(lost=0.49), COLLAPSED_USAGE], "passes"),
        ([DECAY.replace(lost=None), COLLAPSED_USAGE], "cannot judge"),
        ([DECAY.replace(lost=None, weight_decay=0.0), COLLAPSED_USAGE], "passes"),
        ([DECAY.replace(lost=0.9, short_rows=129)], "warning"),
        ([DECAY.replace(lost=0.9, short_rows=128)], "note"),
        # most of the codebook is short, and unused
        ([DECAY.replace(lost=0.51, short_rows=129), COLLAPSED_USAGE], "error"),
        ([DECAY.replace(lost=0.51, short_rows=128), COLLAPSED_USAGE], "warning"),
        ([DECAY.replace(lost=0.51, short_rows=129), Usage.healthy()], "note"),
        # a usage that is good, beside a task that the codes cost
        ([DECAY.replace(lost=0.51), Usage.healthy(), TaskMetrics.healthy(accuracy=0.86)], "warning"),
        ([DECAY.replace(lost=0.51), Usage.healthy(), TaskMetrics.healthy(accuracy=0.94)], "note"),
        # every code is shorter than one step of the optimizer, 2e-3
        ([CRUSHED, Usage.healthy(), CodebookGeometry.healthy(norm_max=1.9e-3), UNDONE], "error"),
        ([CRUSHED, Usage.healthy(), CodebookGeometry.healthy(norm_max=1.9e-3)], "warning"),
        ([CRUSHED, Usage.healthy(), CodebookGeometry.healthy(norm_max=2.1e-3), UNDONE], "note"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ308", *evidence) == expected


def test_a_guess_from_the_file_is_less_sure_and_says_what_would_decide_it() -> None:
    (guess,) = problems("VQ308", DECAY.replace(lost=1.0, short_rows=200))
    assert guess.confidence is Confidence.MEDIUM and guess.decide_with.startswith("--data")


@pytest.mark.parametrize("weight_decay", [1e-3, 0.0])
def test_weight_decay_in_adam(tmp_path: Path, weight_decay: float) -> None:
    task = Task(GradientVQ, weight_decay=weight_decay)
    path = saved(tmp_path, task, 1200)
    bare, whole = examine(path), live(path, task)
    assert set(found(bare, *OURS)) == set(found(whole, *OURS)) == ({"VQ308"} if weight_decay else set())


def test_an_exempt_codebook_keeps_its_length() -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(3, 3), "codes": nn.Embedding(5, 3)})
    codebook = model["codes"].weight
    start, weight = codebook.detach().clone(), model["encoder"].weight.detach().clone()
    optimizer = run_advice("VQ308", model=model, parameter=codebook)["optimizer"]
    assert isinstance(optimizer, torch.optim.AdamW)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(codebook, start) and not torch.equal(model["encoder"].weight, weight)


def test_a_retraining_takes_the_decay_off_and_its_file_is_not_accused_of_it(tmp_path: Path) -> None:
    """Nor of the learning rate at which the schedule before had ended, which the file's optimizer keeps."""
    task = Task(GradientVQ, weight_decay=1e-2)
    path, output = saved(tmp_path, task, 1200), tmp_path / "out.pt"
    assert "VQ308" in {finding.code for finding in live(path, task).findings}
    state = torch.load(path, weights_only=True)
    for group in state["optimizer"]["param_groups"]:
        group.update(lr=1e-30, initial_lr=3e-3)
    torch.save(state, path)
    settings = Settings(epochs=2, only=("exempt-codebook",), keep_worse=True)
    report = retrain(path, output, user_model=UserModel(task=task), settings=settings)
    assert report.retraining is not None and report.retraining.plan.exempt_codebook
    assert any(
        note.startswith("the optimizer in the file keeps its learning rate 1e-30") for note in report.notes
    )
    for found_again in (examine(output), live(output, task)):
        assert not {"VQ308", "VQ404", "VQ406"} & {finding.code for finding in found_again.findings}


def test_a_schedule_that_lowered_the_rate_makes_the_lost_length_a_bound(tmp_path: Path) -> None:
    (told,) = problems("VQ308", DECAY.replace(lost=0.88, lost_at_most=0.98))
    assert "has taken at most 98 % of the length" in told.message
    assert "(88 % if the learning rate fell evenly; " in told.message
    task = Task(GradientVQ, weight_decay=1e-3)
    path = saved(tmp_path, task, 40)
    state = torch.load(path, weights_only=True)
    for scheduled in (False, True):
        for group in state["optimizer"]["param_groups"] if scheduled else ():
            group.update(lr=group["lr"] * 1e-3)
        torch.save(state, path)
        seen = live(path, task).evidence
        decay = next(e for e in seen if isinstance(e, WeightDecay) and e.source == "batch")
        assert decay.lost is not None and (decay.lost_at_most is not None) == scheduled
        assert decay.lost_at_most is None or decay.lost < decay.lost_at_most
