"""Retraining as a whole: a user's sick checkpoint in, a cured one out, whatever ends the run on its way."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from processes import PATIENCE, start
from small_training import Digits, sick_checkpoint, trained_by_its_own_rule
from small_vqvae import DigitsTask

from vqdoctor.core.errors import UserError
from vqdoctor.core.report import Report
from vqdoctor.core.retraining import Epoch, Goals
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine import examine, exit_code
from vqdoctor.engine.retrain import in_steps, rehearse, retrain, trainable
from vqdoctor.engine.retraining_notes import of_splits
from vqdoctor.engine.session import Session
from vqdoctor.reference.model import Conv2dVQClassifier
from vqdoctor.render import RenderOptions, renderer_of
from vqdoctor.training.rehearsal import step_seconds
from vqdoctor.training.resume import load_state, state_path

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"
EASY = Goals(min_perplexity=2.0, min_usage=0.05, min_accuracy=0.0, max_ece=1.0)
SHORT = Settings(epochs=5, warm_up_epochs=1, goals=EASY)


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small reference model without a straight-through estimator, and its data beside it."""
    return sick_checkpoint(tmp_path_factory.mktemp("sick"))


def states(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(path, weights_only=True)["model"])


def test_it_is_cured_and_the_input_is_as_it_was(sick: Path, tmp_path: Path) -> None:
    before = sick.read_bytes()
    report = retrain(sick, tmp_path / "fixed.pt", settings=SHORT)
    assert sick.read_bytes() == before
    done = report.retraining
    assert done is not None
    assert done.before is not None
    assert done.after is not None
    assert done.before.layers["vq"].perplexity < 2.0 < 5.0 < done.after.layers["vq"].perplexity
    assert done.cured
    assert not state_path(tmp_path / "fixed.pt").exists()
    statuses = {repair.remedy: repair.status for repair in report.repairs}
    assert statuses["straight-through"] == statuses["data-init"] == "applied"
    assert any("straight-through" in change.why for change in done.source)
    assert "VQ101" in {finding.code for finding in report.findings}  # the source is as it was
    assert Report.from_dict(json.loads(report.to_json())) == report


@pytest.mark.parametrize(("quantizer", "cause"), [("unnormalised", "VQ309"), ("sphere", "VQ310")])
def test_a_layer_that_writes_wrong_codes_is_cured_and_its_source_named(
    tmp_path: Path, quantizer: str, cause: str
) -> None:
    """The file is sound until the source as it is updates it, and the report says so."""
    sick = trained_by_its_own_rule(tmp_path, quantizer)
    assert cause in {finding.code for finding in examine(sick).findings}
    report = retrain(sick, tmp_path / "fixed.pt", settings=replace(SHORT, epochs=10))
    done = report.retraining
    assert done is not None and done.cured and done.after is not None
    assert cause in {finding.code for finding in report.findings}
    assert {"VQ309", "VQ310"}.isdisjoint(f.code for f in examine(tmp_path / "fixed.pt").findings)
    (left,) = (change for change in done.source if cause in change.why)
    assert "model.vq.ema_cluster_sum" in left.code or "model.vq.ema_embed_sum" in left.code
    model = Digits(quantizer=quantizer).model()
    model.load_state_dict(states(tmp_path / "fixed.pt"), strict=True)


def test_the_output_loads_into_the_unchanged_model_and_its_optimizer(sick: Path, tmp_path: Path) -> None:
    retrain(sick, tmp_path / "fixed.pt", settings=SHORT)
    task = Digits(straight_through=False)
    model = task.model()
    saved = torch.load(tmp_path / "fixed.pt", weights_only=True)
    model.load_state_dict(saved["model"], strict=True)
    optimizer = task.optimizer(model)
    optimizer.load_state_dict(saved["optimizer"])
    assert saved["config"] == task.config | {"straight_through": False, "vq_weight": 1.0}
    encoder = optimizer.state[model.encoder[0].weight]["exp_avg_sq"]
    assert float(encoder.mean()) > 0  # the bare file no longer says that the encoder is cut
    assert "VQ101" not in {finding.code for finding in examine(tmp_path / "fixed.pt").findings}


def test_the_same_seed_gives_the_same_file(sick: Path, tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        retrain(sick, tmp_path / name, settings=replace(SHORT, seed=3))
    a, b = states(tmp_path / "a.pt"), states(tmp_path / "b.pt")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_missed_goals_are_said_and_the_output_is_written(sick: Path, tmp_path: Path) -> None:
    hard = Settings(epochs=1, goals=Goals(min_perplexity=31.9, min_accuracy=1.0))
    done = retrain(sick, tmp_path / "fixed.pt", settings=hard).retraining
    assert done is not None
    assert not done.cured
    assert (tmp_path / "fixed.pt").is_file()


def test_a_model_that_does_its_task_worse_is_only_written_when_asked_for(tmp_path: Path) -> None:
    sound = SAMPLES / "healthy-256.pt"
    output, anew = tmp_path / "out.pt", replace(SHORT, epochs=1, only=("fresh-start",))
    report = retrain(sound, output, settings=anew)
    done = report.retraining
    assert done is not None and done.before is not None and done.after is not None
    assert (done.after.accuracy or 0.0) < (done.before.accuracy or 0.0) - 0.1
    assert (done.worse, done.written, done.cured, exit_code(report)) == (True, False, False, 1)
    assert not output.exists() and state_path(output).exists()
    assert report.checkpoint is not None and report.checkpoint.path == str(sound)
    assert {repair.status for repair in report.repairs} == {"reverted"}
    kept = retrain(sound, output, settings=replace(anew, resume=True, keep_worse=True))
    assert kept.retraining is not None and kept.retraining.after == done.after
    assert (kept.retraining.worse, kept.retraining.written, exit_code(kept)) == (True, True, 1)
    assert output.exists() and not state_path(output).exists()


def test_a_budget_in_minutes_is_one_in_steps_by_a_timed_batch(
    sick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqdoctor.engine.retrain.step_seconds", lambda found: 0.25)
    with Session.open(sick, training=True) as session:
        found = trainable(session)
        assert in_steps(found, SHORT) is SHORT
        assert in_steps(found, replace(SHORT, minutes=2.0)).steps == 480
        assert in_steps(found, replace(SHORT, minutes=2.0, steps=100)).steps == 100
        half = in_steps(found, replace(SHORT, minutes=2.0, goals=Goals()))
        assert half.steps == 240, "the training without VQ takes as long"


def test_the_clock_ends_a_run_whose_steps_were_thought_faster(
    sick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The minutes hold for the examinations and the model without VQ, too."""
    monkeypatch.setattr("vqdoctor.engine.retrain.step_seconds", lambda found: step_seconds(found) / 4)
    started = time.monotonic()
    examine(sick)
    examined = time.monotonic() - started
    timed = replace(SHORT, epochs=20, goals=replace(EASY, min_accuracy=None), keep_worse=True)
    done = retrain(
        sick, tmp_path / "out.pt", settings=replace(timed, minutes=(3 * examined + 4) / 60)
    ).retraining
    assert done is not None and done.without_vq is not None
    assert done.ended == "time" and 1 <= len(done.epochs) < 20


def test_a_run_by_the_clock_is_taken_up_with_the_steps_that_it_began_with(
    sick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.pt"
    clock = replace(SHORT, minutes=10.0, epochs=4)  # of which the examinations take up to 2
    monkeypatch.setattr("vqdoctor.engine.retrain.step_seconds", lambda found: 40.0)

    class Stop:
        def say(self, doing: str) -> None: ...

        def epoch(self, phase: str, row: Epoch, epochs: int) -> None:
            if row.epoch == 2:  # the first one with VQ
                raise KeyboardInterrupt

    begun = retrain(sick, output, settings=replace(clock, keep_worse=True), watcher=Stop()).retraining
    assert begun is not None and begun.interrupted and begun.plan.steps == 3 and len(begun.epochs) == 2
    monkeypatch.setattr("vqdoctor.engine.retrain.step_seconds", lambda found: 1.0)
    again = replace(clock, resume=True, overwrite=True, keep_worse=True)
    done = retrain(sick, output, settings=again).retraining
    assert done is not None and done.plan.steps == 3 and len(done.epochs) == 4


class CutOff(Digits):
    """The encoder's output is detached on its way to the VQ layer."""

    def model(self) -> Conv2dVQClassifier:
        model = super().model()
        model.encoder.register_forward_hook(lambda module, args, z_e: z_e.detach())
        return model


@pytest.mark.parametrize("dry", [False, True])
def test_a_cause_in_the_source_is_named_before_anything_is_trained(tmp_path: Path, dry: bool) -> None:
    cut = trained_by_its_own_rule(tmp_path, "ema")
    output, user_model = tmp_path / "out.pt", UserModel(task=CutOff(decay=0.9))
    begin = rehearse if dry else retrain
    report = begin(cut, output, user_model=user_model, settings=SHORT)
    done = report.retraining
    assert done is not None and done.epochs == () and done.after is None and done.ended == "source"
    (change,) = done.source
    assert change.why.startswith("VQ102 on vq, which no retraining reaches (--skip reattach-encoder ")
    assert "no detach" in change.code
    assert exit_code(report) == 1 and not output.exists() and not state_path(output).exists()
    told = renderer_of("rich").render(report, RenderOptions())
    assert "NOTHING TO CURE" in told if done.goals_met else told.startswith("NOT CURED: nothing was trained")
    assert "CHANGE YOUR SOURCE FIRST" in told


def test_a_cause_in_the_source_that_is_skipped_is_trained_all_the_same(tmp_path: Path) -> None:
    cut = trained_by_its_own_rule(tmp_path, "ema")
    user_model = UserModel(task=CutOff(decay=0.9))
    anyway = replace(SHORT, epochs=1, skip=("reattach-encoder",), keep_worse=True)
    done = retrain(cut, tmp_path / "out.pt", user_model=user_model, settings=anyway).retraining
    assert done is not None and len(done.epochs) == 1


def test_where_nothing_is_asked_for_and_all_goals_hold_nothing_is_trained(tmp_path: Path) -> None:
    report = retrain(SAMPLES / "healthy-256.pt", tmp_path / "out.pt", settings=SHORT)
    assert report.retraining is not None and report.retraining.ended == "nothing"
    assert exit_code(report) == 0 and not (tmp_path / "out.pt").exists()
    told = renderer_of("rich").render(report, RenderOptions())
    assert told.startswith("NOTHING TO CURE: all 4 goals held before; no finding asks for a training")


class OfOthers(Digits):
    """Digits with the labels of other digits: no model learns them."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        for split, (images, labels) in self.data.items():
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
            self.data[split] = (images, labels[order])


def test_where_the_model_without_vq_learns_nothing_either_none_with_vq_is_trained(
    sick: Path, tmp_path: Path
) -> None:
    task = UserModel(task=OfOthers(straight_through=False, reconstruction_weight=0.0))
    settings = replace(SHORT, epochs=30, goals=replace(EASY, min_accuracy=None))
    report = retrain(sick, tmp_path / "out.pt", user_model=task, settings=settings)
    done = report.retraining
    assert done is not None and done.ended == "unlearned" and done.without_vq is not None
    assert not (done.epochs or done.without_vq.has_learned or done.cured)
    assert exit_code(report) == 1 and [*tmp_path.iterdir()] == []
    told = renderer_of("rich").render(report, RenderOptions())
    assert told.startswith("NOT CURED: the same model learns nothing without VQ either")
    assert "--min-accuracy" in told and "IN THE ORDER TO TRY" not in told

    trained = retrain(sick, tmp_path / "out.pt", user_model=task, settings=replace(SHORT, keep_worse=True))
    assert trained.retraining is not None and len(trained.retraining.epochs) == SHORT.epochs


def test_the_accuracy_to_reach_is_that_of_the_same_model_without_vq(sick: Path, tmp_path: Path) -> None:
    done = retrain(sick, tmp_path / "fixed.pt", settings=Settings(epochs=20)).retraining
    assert done is not None and not done.too_short
    assert done.without_vq is not None
    assert done.without_vq.accuracy is not None
    (limit,) = (goal.limit for goal in done.goals if goal.name == "accuracy")
    assert done.after is not None and done.after.accuracy is not None
    assert limit == pytest.approx(max(done.without_vq.accuracy - 0.015, done.after.least_accuracy))
    (paired,) = (goal.paired for goal in done.goals if goal.name == "accuracy")
    assert paired is not None and paired.samples == done.after.samples
    assert paired.difference == pytest.approx(done.after.accuracy - done.without_vq.accuracy)


def test_a_model_without_vq_that_is_still_learning_sets_no_goal(sick: Path, tmp_path: Path) -> None:
    """After one step both are at a guess: a cure by that measure would be none."""
    easy = replace(EASY, min_accuracy=None)
    report = retrain(sick, tmp_path / "fixed.pt", settings=Settings(steps=1, goals=easy, keep_worse=True))
    done = report.retraining
    assert done is not None and done.goals_met and done.too_short and not done.cured
    assert "accuracy" not in {goal.name for goal in done.goals}
    assert exit_code(report) == 1
    told = " ".join(renderer_of("rich").render(report, RenderOptions()).split())
    assert (
        told.startswith("CURE NOT PROVEN: all 3 goals met after 1 epoch")
        and "too short to tell a cure" in told
        and "--min-accuracy F" in told
    )

    given = replace(easy, min_accuracy=0.01)  # with a goal of the user's own it is not asked for one
    done = retrain(sick, tmp_path / "own.pt", settings=Settings(steps=1, goals=given)).retraining
    assert done is not None and not done.too_short


class Rebuilt(DigitsTask):
    """The reconstruction of images, on few of them."""

    def batches(self, split: str) -> Any:
        return list(super().batches(split)[:4]) if split in ("train", "val") else ()


def test_a_reconstruction_is_compared_with_the_same_model_without_vq(tmp_path: Path) -> None:
    """A collapsed model's own loss is no goal: it would be called cured at the loss of a single code."""
    torch.manual_seed(0)
    task = Rebuilt()
    torch.save({"model": task.model().state_dict()}, tmp_path / "sick.pt")
    settings = replace(SHORT, only=("fresh-start",), goals=Goals(min_perplexity=1.0, min_usage=0.0))
    report = retrain(
        tmp_path / "sick.pt", tmp_path / "out.pt", user_model=UserModel(task=task), settings=settings
    )
    done = report.retraining
    assert done is not None and done.before is not None and done.without_vq is not None
    (goal,) = (goal for goal in done.goals if goal.name == "loss")
    assert done.without_vq.loss < goal.limit < done.before.loss
    assert done.cured == (goal.value <= goal.limit)
    assert "without VQ, trained as long: task loss" in renderer_of("markdown").render(report, RenderOptions())


def test_a_trial_ranks_by_what_was_measured_and_has_a_random_choice_beside_it(
    sick: Path, tmp_path: Path
) -> None:
    wanted = Settings(epochs=8, trial=True, goals=EASY, warm_up_epochs=2)
    report = retrain(sick, tmp_path / "fixed.pt", settings=wanted)
    done = report.retraining
    assert done is not None
    names = [arm.name for arm in done.trial]
    assert {"as it was", "the plan", "a random choice", "data-init"} <= set(names)
    extra = {f"the plan with {name}" for name in ("fresh-start", "moment-matching", "entropy-term")}
    assert extra <= set(names)
    whole = next(arm for arm in done.trial if arm.name == "the plan")
    for arm in done.trial:
        assert arm.price is not None or arm.name not in extra
        if arm.price is not None and arm.epochs == whole.epochs:
            assert arm.price.loss == pytest.approx(arm.figures.loss - whole.figures.loss)
    assert [arm.chosen for arm in done.trial] == [True] + [False] * (len(names) - 1)
    chosen = done.trial[0]
    applied = {repair.remedy for repair in report.repairs if repair.status == "applied"}
    assert applied == set(chosen.remedies)
    untried = {r.remedy for r in report.repairs if r.status == "reverted"}
    assert not untried & set(chosen.remedies)


def test_an_output_that_exists_is_left_alone(sick: Path, tmp_path: Path) -> None:
    (tmp_path / "fixed.pt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        retrain(sick, tmp_path / "fixed.pt", settings=SHORT)
    assert (tmp_path / "fixed.pt").read_text() == "mine"


def test_a_run_that_ends_while_its_output_is_examined_is_resumed(
    sick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that lies there is the run's own."""
    output = tmp_path / "fixed.pt"

    def interrupted(*_: object, **__: object) -> Report:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vqdoctor.engine.retrain.examine", interrupted)
        with pytest.raises(KeyboardInterrupt):
            retrain(sick, output, settings=SHORT)
    written = output.read_bytes()
    done = retrain(sick, output, settings=replace(SHORT, resume=True)).retraining
    assert done is not None and done.cured and len(done.epochs) == SHORT.epochs
    assert output.read_bytes() == written and not state_path(output).exists()


DRIVER = """
import os, sys, torch
torch.set_num_threads(1)
from vqdoctor.core.retraining import Goals
from vqdoctor.core.settings import Settings
from vqdoctor.engine.retrain import retrain
easy = Goals(min_perplexity=2.0, min_usage=0.05, min_accuracy=0.0, max_ece=1.0)
settings = Settings(epochs=8, warm_up_epochs=8, goals=easy, resume=True, overwrite=True)
class Watcher:
    def say(self, doing): pass
    def epoch(self, phase, row, epochs): print("epoch", row.epoch, flush=True)
def run(sick, output):
    report = retrain(sick, output, settings=settings, watcher=Watcher())
    print("interrupted" if report.retraining.interrupted else "done", flush=True)
"""
ONCE = "run(*sys.argv[1:])"
OFTEN = """
import torch._dynamo  # which torch's optimizers import at their first step
for output in sys.stdin:  # every run is a process of its own, which need not import torch again
    if not (child := os.fork()):
        print("started", os.getpid(), flush=True)
        run(sys.argv[1], output.rstrip())
        os._exit(0)
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


@dataclass
class Runs:
    """Retrainings, each in a process of its own."""

    parent: subprocess.Popen[str]

    def start(self, output: Path) -> int:
        """Start one, and return its process."""
        assert self.parent.stdin is not None
        self.parent.stdin.write(f"{output}\n")
        self.parent.stdin.flush()
        return int(self.line().removeprefix("started"))

    def line(self) -> str:
        """Wait for a line of the run, or for its end."""
        assert self.parent.stdout is not None
        return self.parent.stdout.readline()

    def rest(self, *lines: str) -> list[str]:
        """Return all lines to the end of the run, which is the last of them."""
        told = list(lines)
        while not told or not told[-1].startswith("ended"):
            told.append(self.line())
            assert told[-1], "the parent is gone"
        return told


@pytest.mark.slow
@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.accept)])
def test_kill_9_at_random_moments_loses_at_most_an_epoch_and_leaves_no_unreadable_file(
    times: int, sick: Path, tmp_path: Path
) -> None:
    """Killed again and again, at times while a state is written; then it ends to the bit as if unkilled."""
    whole, output = tmp_path / "whole.pt", tmp_path / "fixed.pt"
    draw = random.Random(0)
    reached, kills = 0, 0
    with start("-c", DRIVER + OFTEN, sick, stdin=subprocess.PIPE) as parent:
        runs = Runs(parent)
        runs.start(whole)
        assert runs.rest()[-2:] == ["done\n", "ended 0\n"]
        while kills < times:
            process = runs.start(output)
            first = runs.line()  # an epoch is done, or the run
            time.sleep(draw.uniform(0.0, 0.06))
            with contextlib.suppress(ProcessLookupError):  # it may be done
                os.kill(process, signal.SIGKILL)
            told = runs.rest(first)
            kills += 1
            epochs = [int(line.split()[1]) for line in told if line.startswith("epoch")]
            state = state_path(output)
            if state.exists():
                rows = len(load_state(state)["training"]["trainer"]["rows"])
                assert rows >= max([reached, *epochs])
                reached = rows
            if output.exists():  # whole, or not there
                states(output)
            if "done\n" in told or (output.exists() and not state.exists()):
                reached = 0
                output.unlink()
        runs.start(output)
        assert runs.rest()[-1] == "ended 0\n"
    one, other = states(whole), states(output)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_sigterm_ends_the_run_with_what_there_is(sick: Path, tmp_path: Path) -> None:
    with start("-c", DRIVER + ONCE, sick, tmp_path / "fixed.pt") as run:
        assert run.stdout is not None
        for _ in range(3):  # epochs, of which the third is the first one with VQ
            run.stdout.readline()
        os.kill(run.pid, signal.SIGTERM)
        told = run.stdout.read()
        assert run.wait(PATIENCE) == 0
    if "interrupted" in told:  # else it was done before the signal came
        assert state_path(tmp_path / "fixed.pt").exists()
    states(tmp_path / "fixed.pt")


@pytest.mark.parametrize(
    ("keeps_order", "can_mix", "told"),
    [(True, False, "as they are served"), (False, False, "no axis of samples"), (False, True, "")],
)
def test_the_notes_name_why_samples_were_not_mixed(keeps_order: bool, can_mix: bool, told: str) -> None:
    splits: Any = SimpleNamespace(
        repeats=False, mixes=False, shuffles_itself=False, keeps_order=keeps_order, can_mix=can_mix
    )
    notes = of_splits(splits, shuffled=True)
    assert [told in note for note in notes] == ([True] if told else [])
    assert of_splits(splits, shuffled=False) == []
