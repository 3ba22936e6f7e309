"""VQ607: the file's own record says chance."""

import pytest
import torch
from judged import says

from tests.first_model import first_model_file
from vqdoctor.core.evidence import RecordedScores, TaskMetrics
from vqdoctor.engine.examine import examine

SCORES = RecordedScores.healthy()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"accuracy": 0.145}, "warning"),
        ({"accuracy": 0.151}, "passes"),
        ({"accuracy": 0.52, "classes": 2}, "warning"),
        ({"accuracy": 0.53, "classes": 2}, "passes"),
        ({"accuracy": None, "cross_entropy": 2.26}, "warning"),
        ({"accuracy": None, "cross_entropy": 2.25}, "passes"),
        ({"accuracy": None, "cross_entropy": 2.34}, "warning"),
        ({"accuracy": None, "cross_entropy": 2.36}, "passes"),
        ({"cross_entropy": 2.3026}, "passes"),
        ({"vq_loss_rise": 101.0}, "warning"),
        ({"vq_loss_rise": 99.0}, "passes"),
        ({"accuracy": 0.1, "classes": None, "vq_loss_rise": None}, "cannot judge"),
        ({"accuracy": 0.1, "updates": 0}, "cannot judge"),
    ],
)
def test_limits(changes, expected):
    assert says("VQ607", SCORES.replace(**changes)) == expected


def test_a_measured_accuracy_outranks_the_record():
    assert says("VQ607", SCORES.replace(accuracy=0.1), TaskMetrics.healthy()) == "passes"


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ((0.1, 0.144, 150), "warning"),
        ((0.144, 0.1, 150), "warning"),
        ((0.146, 0.1, 150), "passes"),
        ((0.1, 0.146, 150), "passes"),
        ((0.1, None, 150), "cannot judge"),
        # the interval of 397 samples rules out a tenth of the way to perfect, that of 40 does not
        ((0.1, 0.144, 397), "error"),
        ((0.1, 0.1, 40), "warning"),
        ((0.1, 0.1, 50), "error"),
    ],
)
def test_a_measured_accuracy_is_judged_with_and_without_the_layer(measured, expected):
    accuracy, bypass, samples = measured
    metrics = TaskMetrics.healthy(
        accuracy=accuracy, bypass_accuracy=bypass, chance_accuracy=0.1, sample_size=samples
    )
    assert says("VQ607", metrics) == expected


def finding(report):
    return next((f for f in report.findings if f.code == "VQ607"), None)


@pytest.mark.parametrize(("balanced", "expected"), [(0.7, "passes"), (0.04, "error"), (None, "error")])
def test_a_model_that_finds_a_rare_event_is_not_at_chance(balanced, expected):
    metrics = TaskMetrics.healthy(
        accuracy=0.92, bypass_accuracy=0.92, chance_accuracy=0.97, sample_size=10_000, balanced_skill=balanced
    )
    assert says("VQ607", metrics) == expected


def test_the_first_models_file_says_it_itself(tmp_path):
    torch.save(first_model_file(), tmp_path / "best.pt")
    report = examine(tmp_path / "best.pt")
    found = finding(report)
    assert "accuracy 0.094 (val_acc)" in found.message
    assert "12 classes (the shape of head.weight)" in found.message
    assert report.findings[0].code == "VQ310"
    assert report.verdict == "at-risk"


def test_a_number_that_resembles_ln_12_counts_no_classes(tmp_path):
    saved = first_model_file(on_sphere=False, val_acc=0.91)
    torch.save(saved, tmp_path / "best.pt")
    assert finding(examine(tmp_path / "best.pt")) is None
