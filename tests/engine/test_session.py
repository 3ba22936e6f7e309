"""One opening of the input and one model for all that a command does; one plan, printed and trained."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import Digits, sick_checkpoint

from vqdoctor.checkpoint import Checkpoint
from vqdoctor.cli.main import main
from vqdoctor.core.errors import UserError
from vqdoctor.engine import Settings, UserModel, batch, build_model, examine, session
from vqdoctor.engine.examine import examine_session
from vqdoctor.engine.retrain import plan_for, retrain, trainable
from vqdoctor.engine.session import Session


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sick_checkpoint(tmp_path_factory.mktemp("sick"))


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count, by the file's name, the openings of checkpoints, and as "model" the models that are built."""
    found: Counter[str] = Counter()
    opened, built = session.open_checkpoint, build_model.build_model

    def counted_open(path: str | os.PathLike[str]) -> Checkpoint:
        found[Path(path).name] += 1
        return opened(path)

    def counted_build(of: Session) -> Any:
        found[f"model of {Path(of.path or '').name}"] += 1
        return built(of)

    with monkeypatch.context() as patch:
        for module in (session, batch):
            patch.setattr(module, "open_checkpoint", counted_open)
        patch.setattr(build_model, "build_model", counted_build)
        yield found


RETRAIN = ("--retrain", "--epochs", "1", "--min-accuracy", "0")


@pytest.mark.parametrize(
    ("arguments", "built"),
    [
        (("inspect", "sick.pt"), 0),
        (("inspect", "sick.pt", "--data", "digits.npz", "--verify"), 1),
        (("fix", "sick.pt", "-o", "out.pt", "--only", "revive-dead-codes"), 0),
        (("fix", "sick.pt", "-o", "out.pt", "--data", "digits.npz", "--unsafe-fixes"), 1),
        (("fix", "sick.pt", "-o", "out.pt", "--dry-run"), 0),
        (("fix", "sick.pt", "-o", "out.pt", *RETRAIN), 1),
        (("gate", "sick.pt"), 0),
        (("gate", "sick.pt", "--data", "a.npz", "--data", "b.npz"), 0),
    ],
)
def test_a_command_opens_its_input_once(
    arguments: tuple[str, ...], built: int, sick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sick.pt", "digits.npz"):
        (tmp_path / name).write_bytes((sick.parent / name).read_bytes())
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, z_e=np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    with counting(monkeypatch) as found:
        assert main([*arguments]) in (0, 1, 3)
    assert found["sick.pt"] == 1
    assert found["model of sick.pt"] == built
    assert found["out.pt"] == (tmp_path / "out.pt").exists()


class Counted(Digits):
    """A user's task that counts how often its model is built."""

    def __init__(self) -> None:
        super().__init__(straight_through=False, vq_weight=1.0)
        self.built = 0

    def model(self) -> torch.nn.Module:
        self.built += 1
        return super().model()


def test_the_users_model_is_built_once_for_an_examination_and_its_retraining(sick: Path) -> None:
    task = Counted()
    with Session.open(sick, user_model=UserModel(task=task), training=True) as opened:
        report = examine_session(opened).report
        model = trainable(opened)
        assert model.before is not None
        plan = plan_for(report, model, opened.settings)
    assert task.built == 1
    printed = [(step.remedy, step.codes) for step in report.plan]
    assert printed == [(planned.remedy.name, planned.because) for planned in plan.remedies]


def test_a_users_retraining_applies_what_its_inspection_printed(sick: Path, tmp_path: Path) -> None:
    user_model = UserModel(task=Counted())
    printed = examine(sick, user_model=user_model).plan
    report = retrain(sick, tmp_path / "out.pt", user_model=user_model, settings=Settings(epochs=1))
    assert [repair.remedy for repair in report.repairs] == [step.remedy for step in printed]
    statuses = {repair.remedy: repair.status for repair in report.repairs}
    assert statuses.pop("calibrate") == "no-effect"  # after one epoch it knows too little to be too sure
    assert {*statuses.values()} == {"applied"}


def test_the_layers_and_the_record_are_read_when_they_are_asked_for(sick: Path) -> None:
    with Session.open(sick, settings=Settings(layer="nosuch")) as opened:
        assert opened.record.task == "conv2d-vq/digits"
        with pytest.raises(UserError, match="nosuch"):
            _ = opened.found


def test_data_that_lies_beside_the_checkpoint_is_looked_for_in_a_retraining_alone(sick: Path) -> None:
    with Session.open(sick) as opened:
        assert opened.data is None and opened.notes == ()
    with Session.open(sick, training=True) as opened:
        assert opened.data == sick.parent / "digits.npz"
        assert opened.arrays is not None and "x" in opened.arrays
        assert opened.notes == (f"trained on {opened.data}, which lies beside the checkpoint",)
