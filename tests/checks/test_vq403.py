"""VQ403: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from judged import run_advice, says
from state_models import OURS, EmaVQ, Task, found, live, saved

from vqdoctor.checks.vq403_unshuffled_loader import Limits, evaluate
from vqdoctor.core.evidence import BatchMixing, Evidence, TaskMetrics
from vqdoctor.core.levels import Severity

MIXING = BatchMixing.healthy()
METRICS = TaskMetrics.healthy(bypass_accuracy=0.55, chance_accuracy=0.1)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # large and certain
        ([MIXING.replace(label_drift=0.21, label_z=5.1)], "warning"),
        # for certain, but small
        ([MIXING.replace(label_drift=0.19, label_z=50.0)], "note"),
        ([MIXING.replace(label_drift=0.021, label_z=5.1)], "note"),
        ([MIXING.replace(label_drift=0.019, label_z=50.0)], "passes"),
        ([MIXING.replace(label_drift=0.9, label_z=4.9)], "passes"),
        ([MIXING.replace(code_drift=0.21, code_z=5.1)], "warning"),
        ([MIXING.replace(label_drift=-0.5, label_z=-30.0)], "passes"),
        # the encoder has forgotten with its codes: half of the task is still to do
        ([MIXING.replace(label_drift=0.3, label_z=9.0), METRICS.replace(accuracy=0.54)], "error"),
        ([MIXING.replace(label_drift=0.3, label_z=9.0), METRICS.replace(accuracy=0.56)], "warning"),
        ([MIXING.replace(label_drift=0.1, label_z=9.0), METRICS.replace(accuracy=0.54)], "note"),
        # sorted batches: less than half, but more than a sound model leaves
        ([MIXING.replace(label_drift=0.51, label_z=9.0), METRICS.replace(accuracy=0.72)], "error"),
        ([MIXING.replace(label_drift=0.51, label_z=9.0), METRICS.replace(accuracy=0.74)], "warning"),
        ([MIXING.replace(label_drift=0.49, label_z=9.0), METRICS.replace(accuracy=0.72)], "warning"),
        ([MIXING.replace(label_drift=None, label_z=None, code_drift=None, code_z=None)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ403", *evidence) == expected


@pytest.mark.parametrize(
    ("drift", "accuracy", "forgot"), [(0.51, 0.2, True), (0.49, 0.2, False), (0.6, 0.7, False)]
)
def test_a_codebook_far_from_the_data_is_a_symptom_of_forgetting(
    drift: float, accuracy: float, forgot: bool
) -> None:
    """Batches of one kind in order and a failed model: the codes lie where the last kind was."""
    evidence = [MIXING.replace(label_drift=drift, label_z=90.0), METRICS.replace(accuracy=accuracy)]
    (problem,) = evaluate(*evidence, Limits())
    assert ("VQ301" in problem.explains) is forgot


@pytest.mark.parametrize("sorted_by_class", [True, False])
def test_batches_in_the_order_of_the_classes(tmp_path: Path, sorted_by_class: bool) -> None:
    task = Task(lambda: EmaVQ(own_init=True), sorted_by_class=sorted_by_class)
    report = live(saved(tmp_path, task, 120), task)
    assert found(report, *OURS) == ({"VQ403": Severity.WARNING} if sorted_by_class else {})


def test_the_loader_shuffles_anew() -> None:
    torch.manual_seed(0)
    loader = run_advice("VQ403", data=list(range(64)))["loader"]
    assert isinstance(loader, torch.utils.data.DataLoader)
    first, second = ([int(i) for batch in loader for i in batch] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(64)) and first != second
