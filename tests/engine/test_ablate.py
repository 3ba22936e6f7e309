"""An ablation: its cells, the training that each stands on, and a study taken up and joined."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_training import DIGITS, Digits

from vqdoctor.cli._ablation import require_own
from vqdoctor.core.ablation import AblationFigures, CodebookFigures, Cost, Latency, Run, Study
from vqdoctor.core.errors import UserError
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.ablate import study as study_module
from vqdoctor.engine.ablate.cells import STEPS, Training, lay_out
from vqdoctor.engine.ablate.kept import RUNS, STUDY, Kept, merge
from vqdoctor.engine.ablate.one import Bench
from vqdoctor.engine.ablate.subject import Subject
from vqdoctor.engine.plan import make_plan
from vqdoctor.engine.retrain import decisive
from vqdoctor.models.user_code import load_object
from vqdoctor.render import ablation_text


def laid_out(weight: float = 1.0, only: str | None = None) -> tuple[Study, dict[str, Training]]:
    plan = make_plan((), ("vq",), Settings(epochs=7), trained_vq_weight=weight)
    cells, trainings = lay_out(plan, {"as it is": None, "layer A": 0.1}, 7)
    study = Study(
        versions={}, subject="a model", identity="one", epochs=7, seeds=(0, 1), threads=1, device="cpu",
        vq_weight=weight, cells=cells,
    )  # fmt: skip
    return study, trainings


def figures(accuracy: float = 0.9, perplexity: float | None = 100.0) -> AblationFigures:
    layer = (
        None
        if perplexity is None
        else CodebookFigures(num_codes=256, perplexity=perplexity, active=150, expected_active=256.0)
    )
    return AblationFigures(
        loss=0.1,
        samples=400,
        accuracy=accuracy,
        parameters=1000,
        layers={} if layer is None else {"vq": layer},
    )


def test_every_question_has_its_cells() -> None:
    study, trainings = laid_out()
    groups = [cell.group for cell in study.cells]
    counted = [groups.count(g) for g in ("reference", "added", "alone", "left out", "random", "in its place")]
    assert counted == [3, 5, 5, 5, 1, 1]
    added = [cell.remedies for cell in study.cells if cell.group == "added"]
    assert added == [STEPS[:n] for n in range(1, 6)]
    assert all(t.plan.start == "scratch" and t.plan.epochs == 7 for t in trainings.values())
    assert all(t.plan.further_epochs == 0 for t in trainings.values())
    assert trainings["without-vq"].without_vq
    assert trainings["layer-a-as-it-is"].plan.vq_weight == 0.1 and trainings["as-it-is"].plan.vq_weight == 1.0


def test_equal_trainings_are_done_once() -> None:
    study, _ = laid_out()
    runs = {cell.name: cell.run for cell in study.cells}
    assert runs["straight-through alone"] == runs["straight-through"]
    assert runs["all but revive-dead-codes"] == runs["+ warm-up"]
    assert len(study.trainings) == 2 * len({*runs.values()}) == 2 * (len(runs) - 2)
    light, _ = laid_out(weight=0.1)  # the weight is a tenth already: step 2 changes nothing
    runs = {cell.name: cell.run for cell in light.cells}
    assert runs["+ lower-vq-weight"] == runs["straight-through"]
    assert runs["lower-vq-weight alone"] == runs["as it is"]


def test_a_study_is_taken_up_and_two_shards_make_the_whole(tmp_path: Path) -> None:
    study, _ = laid_out()
    whole, shards = Kept.open(tmp_path / "whole", study), []
    for number in (0, 1):
        shard = Kept.open(tmp_path / f"shard-{number}", study)
        for at, (run, seed) in enumerate(study.trainings):
            done = Run(run=run, seed=seed, figures=figures(accuracy=1 / (3 + at)))
            cost = Cost(run=run, seed=seed, seconds=1.0)
            if at % 2 == number:
                shard.add(done, cost)
            if number == 0:
                whole.add(done, cost)
        shards.append(tmp_path / f"shard-{number}")
    whole.add_latency(Latency(run="fsq", samples=4, p50=1.0, p95=2.0))
    again = Kept.open(tmp_path / "whole", study)
    assert again.study == whole.study and again.study.missing == 0
    joined = merge([*reversed(shards)], tmp_path / "joined")
    assert joined.runs == whole.study.runs  # to the digit, in the study's own order
    assert Kept.open(tmp_path / "joined", study).study == joined


def test_a_study_whose_trainings_fail_says_so() -> None:
    study, _ = laid_out()
    failed = [Run(run=run, seed=seed, failed="NaN") for run, seed in study.trainings]
    none = replace(study, runs=tuple(failed), notes=("no val split",))
    assert not none.missing and not none.is_complete
    text = ablation_text(none, 100)
    assert "no val split" in text and "Not trained: " in text and "as it is" in text.split("NaN")[0]
    assert "failed" in text.splitlines()[1]
    told = replace(study, runs=tuple(replace(run, figures=figures(), failed="") for run in failed))
    assert told.is_complete and "Not trained" not in ablation_text(told, 100)


def test_a_study_that_ends_before_its_times_says_what_lacks() -> None:
    study, _ = laid_out()
    runs = tuple(Run(run=run, seed=seed, figures=figures()) for run, seed in study.trainings)
    untimed = replace(study, runs=runs, interrupted=True)
    text = ablation_text(replace(untimed, latencies=(Latency(run="fsq", samples=4, p50=1.0, p95=2.0),)), 100)
    models = len({run.run for run in runs})
    assert f"all trainings are done, but 1 of {models} models are timed" in text
    early = ablation_text(replace(untimed, runs=runs[1:]), 100)
    assert f"{len(runs) - 1} of {len(runs)} trainings are done" in early


def test_a_changed_module_of_the_task_makes_another_study(tmp_path: Path) -> None:
    (tmp_path / "ablated_net.py").write_text("SIZE = 3\n")
    (tmp_path / "ablated_task.py").write_text("import ablated_net\ntask = ablated_net.SIZE\n")
    spec = f"{tmp_path / 'ablated_task.py'}:task"
    load_object(spec, "--task")
    subject = Subject(path=None, user_model=UserModel(task=spec), settings=Settings())
    first = subject.fingerprint
    (tmp_path / "ablated_net.py").write_text("SIZE = 4\n")
    assert replace(subject).fingerprint != first


@pytest.mark.parametrize("name", ["batch.npz", "batch.npy"])
def test_other_data_makes_another_study(name: str, tmp_path: Path) -> None:
    """A batch of x and y alone is no checkpoint, and is not opened as one."""
    told = []
    for value in (0.0, 1.0):
        x = np.full((4, 1, 8, 8), value)
        np.savez(tmp_path / name, x=x, y=np.zeros(4)) if name.endswith("z") else np.save(tmp_path / name, x)
        settings = Settings(data=(tmp_path / name,))
        told.append(Subject(path=None, user_model=UserModel(), settings=settings).fingerprint)
    assert told[0] != told[1]


def test_another_layer_or_other_data_make_another_study() -> None:
    def identity(images: int, layer: str | None = None) -> str:
        settings = Settings(epochs=1, layer=layer)
        subject = Subject(path=None, user_model=UserModel(task=Digits(images)), settings=settings)
        return study_module._laid_out(subject, Silent())[0].identity

    first = identity(60)
    assert identity(60) == first
    assert identity(60, layer="vq") != first
    assert identity(200) != first


def test_the_losses_that_a_user_names_are_among_the_options_of_a_run() -> None:
    named: list[dict[str, Any]] = [{}, {"task_loss": "mse"}, {"vq_loss": "mse"}]
    options = [decisive(Settings(), UserModel(model="m:M", **one)) for one in named]
    assert all(one != other for one, other in itertools.combinations(options, 2))


class Silent:
    """Follows a study, and says nothing."""

    def say(self, doing: str) -> None:
        pass

    def done(self, run: Run, number: int, of: int, seconds_left: float) -> None:
        pass


def test_a_file_of_someone_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "ablation.csv").write_text("mine")
    with pytest.raises(UserError, match=r"ablation\.csv is there"):
        require_own(tmp_path)
    Kept.open(tmp_path, laid_out()[0])
    require_own(tmp_path)
    require_own(tmp_path / "new")
    with pytest.raises(UserError, match="a file, and no folder"):
        require_own(tmp_path / "ablation.csv")


def test_another_study_is_refused(tmp_path: Path) -> None:
    study, _ = laid_out()
    Kept.open(tmp_path / "one", study)
    other = replace(study, identity="two")
    with pytest.raises(UserError, match="holds the study of a model"):
        Kept.open(tmp_path / "one", other)
    Kept.open(tmp_path / "two", other)
    with pytest.raises(UserError, match="different studies"):
        merge([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
    with pytest.raises(UserError, match="holds no study"):
        merge([tmp_path / "three"], tmp_path / "out")


@pytest.mark.parametrize("text", ["{", "[1]", "{}", "\x00"])
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    study, _ = laid_out()
    kept = Kept.open(tmp_path, study)
    kept.add(Run(run="fsq", seed=0, figures=figures()), Cost(run="fsq", seed=0, seconds=1.0))
    (tmp_path / RUNS / "fsq-seed-0.json").write_text(text)
    with pytest.raises(UserError, match=r"fsq-seed-0\.json"):
        Kept.open(tmp_path, study)
    (tmp_path / STUDY).write_text(text)
    with pytest.raises(UserError, match=r"study\.json"):
        Kept.open(tmp_path, study)


def test_the_model_with_fsq_is_trained_as_its_task_says() -> None:
    plan = make_plan((), ("vq",), Settings(epochs=1), trained_vq_weight=1.0)
    _, trainings = lay_out(plan, {"as it is": None}, 1)
    subject = Subject(
        path=DIGITS.with_name("no-ste.pt"), user_model=UserModel(), settings=Settings(data=(DIGITS,))
    )
    bench = Bench(subject, trainings)
    try:
        run, _ = bench.train("fsq", 0)
        assert not run.failed and run.figures is not None
        assert not bench.trainable("fsq").context.task.trains_itself
    finally:
        bench.close()
