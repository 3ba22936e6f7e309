"""What a file records of its model's success, taken by names, with the classes of a head or a setting."""

import json

import numpy as np
import pytest
import torch

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.saved.scores import rise
from vqdoctor.saved.training import SavedTraining

HEAD = {"encoder.weight": torch.zeros(8, 4), "head.weight": torch.zeros(12, 8), "head.bias": torch.zeros(12)}


@pytest.fixture
def read(tmp_path):
    def read(saved):
        torch.save(saved, tmp_path / "model.pt")
        return SavedTraining(checkpoint=open_checkpoint(tmp_path / "model.pt")).scores

    return read


@pytest.mark.parametrize(
    ("record", "value", "where"),
    [
        ({"val_acc": 0.094}, 0.094, "val_acc"),
        ({"val_acc": np.float64(0.094)}, 0.094, "val_acc"),
        ({"best_val_accuracy": torch.tensor(0.5)}, 0.5, "best_val_accuracy"),
        ({"metrics": {"val/acc": 61.0}}, 0.61, "metrics.val/acc"),
        ({"history": {"val_acc": [0.1, 0.4, 0.3]}}, 0.4, "history.val_acc"),
        (
            {"callbacks": {"ModelCheckpoint{'monitor': 'val_acc'}": {
                "monitor": "val_acc", "best_model_score": torch.tensor(0.25)}}},
            0.25, "callbacks.ModelCheckpoint{'monitor': 'val_acc'}.best_model_score",
        ),
    ],
)  # fmt: skip
def test_the_best_accuracy_is_found(read, record, value, where):
    scores = read({"state_dict": HEAD, **record})
    assert scores.accuracy.value == pytest.approx(value)
    assert scores.accuracy.where == where


@pytest.mark.parametrize(
    "record",
    [
        {"best_acc": 0.0},
        {"train_acc": 0.3, "target_acc": 0.2, "val_loss": 2.485},
        {"callbacks": {"EarlyStopping": {"monitor": "val_loss", "best_score": torch.tensor(2.48)}}},
        {"val_acc": float("nan")},
        {"val/nll_loss": 2.3026, "nll": 2.3026},  # a VQGAN's reconstruction has this name
        {"losses": [{"commit_loss": 10.0**i} for i in range(8)]},  # eight residual levels are no course
    ],
)
def test_other_numbers_are_no_accuracy_and_no_cross_entropy(read, record):
    assert read({"state_dict": HEAD, **record}).found == 0


@pytest.mark.parametrize(
    ("more", "classes", "where"),
    [
        ({}, 12, "the shape of head.weight"),
        ({"config": {"num_classes": 7}}, 7, "config.num_classes"),
        ({"config": {"class_names": ["a", "b", "c"]}}, 3, "config.class_names"),
        ({"labels": [0, 1, 2, 0, 1, 2, 0]}, 3, "labels"),
    ],
)
def test_classes_come_from_a_setting_or_from_the_head(read, more, classes, where):
    scores = read({"state_dict": HEAD, "val_acc": 0.1, **more})
    assert (scores.classes.value, scores.classes.where) == (classes, where)


def test_heads_that_differ_and_models_without_a_head_tell_no_classes(read):
    two = {**HEAD, "class_head.weight": torch.zeros(5, 8)}
    assert read({"state_dict": two, "val_acc": 0.1}).classes is None
    assert read({"state_dict": {"fc.weight": torch.zeros(128, 16)}, "val_acc": 0.0099}).classes is None
    assert read({"state_dict": {"decoder.weight": torch.zeros(12, 8)}, "ce": 2.485}).classes is None


def test_a_head_of_two_layers_ends_with_its_classes(read):
    deep = {"classifier.0.weight": torch.zeros(64, 8), "classifier.2.weight": torch.zeros(9, 64)}
    assert read({"state_dict": deep, "val_acc": 0.1}).classes.value == 9


def test_a_trainers_state_beside_the_file_is_read(read, tmp_path):
    log = [{"step": i, "eval_accuracy": 0.1 + i / 1000, "vq_loss": 2.0**i} for i in range(12)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    scores = read({"state_dict": HEAD})
    assert scores.accuracy.value == pytest.approx(0.111)
    assert scores.accuracy.where == "trainer_state.json: log_history.11.eval_accuracy"
    assert rise(scores.vq_losses[0]) == 2.0**9
    (tmp_path / "trainer_state.json").write_text("[" * 100_000)
    assert read({"state_dict": HEAD}).found == 0


def test_a_rise_needs_a_course():
    assert rise([1.0, 2.0, 3.0]) is None
    assert rise([0.0] * 8) is None
    assert rise([1.0] * 8) == 1.0
