"""The experiments on a small model, against the same trained by hand."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.core.evidence import NOT_FINITE, Experiments, Unavailable
from vqdoctor.core.experiments import REMOVALS
from vqdoctor.models.task import Losses
from vqdoctor.models.untouched import seed_all, untouched
from vqdoctor.probes.model import ModelContext, experiments
from vqdoctor.probes.model._changes import CHANGES

_spec = importlib.util.spec_from_file_location("vq_libraries", Path(__file__).with_name("libraries.py"))
assert _spec is not None and _spec.loader is not None
lib = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lib)

STEPS = 6


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model(*, trained: bool = True) -> nn.Module:
    """Return a model whose codes lie where its data is, or where a random start left them."""
    torch.manual_seed(0)
    vq = VectorQuantize(lib.DIM, lib.CODES, rotation_trick=False, decay=0.95, kmeans_init=trained)
    built: nn.Module = lib.Classifier(vq)
    with torch.no_grad():
        built.train(trained)(lib.ToyTask().x["train"])
    return built


class Task(lib.ToyTask):
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05)


def ask(task: Any = None, steps: int = STEPS, seen: nn.Module | None = None) -> Experiments | Unavailable:
    seen = seen or model()
    context: ModelContext = replace(lib.context(seen, task or Task(seen)), experiment_steps=steps)
    with untouched(context.model, seed=0):  # which proves that the user's model is not changed
        (got,) = experiments.PROBE.measure(context)
    assert isinstance(got, Experiments | Unavailable)
    return got


@pytest.fixture(scope="module")
def measured() -> Experiments:
    got = ask()
    assert isinstance(got, Experiments)
    return got


def test_every_experiment_has_its_meaning_and_its_change() -> None:
    assert list(CHANGES) == list(REMOVALS)


def by_hand(weight: float, rate: float, *, bypass: bool = False, steps: int = STEPS) -> float:
    """Return the task loss of the val batches after the steps, in eval mode."""
    trained, task = model().train(), Task()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.05 * rate)

    def losses(batch: Any) -> Losses:
        if not bypass:
            return task.losses(trained, batch)  # type: ignore[no-any-return]
        with_z_e = trained.vq.register_forward_hook(lambda _, args, out: (args[0], *out[1:]))
        found = task.losses(trained, batch)
        with_z_e.remove()
        return found  # type: ignore[no-any-return]

    for number, batch in enumerate(itertools.islice(itertools.cycle(list(task.batches("train"))), steps)):
        seed_all(number)
        found = losses(batch)
        optimizer.zero_grad()
        (found.task + weight * found.vq).backward()
        optimizer.step()
    trained.eval()
    with torch.no_grad():
        told = [float(losses(batch).task) for batch in task.batches("val")]
    return sum(told) / len(told)


def test_each_arm_is_what_training_by_hand_gives(measured: Experiments) -> None:
    expected = {
        "lighter-vq-loss": by_hand(0.025, 1.0), "heavier-vq-loss": by_hand(2.5, 1.0),
        "lower-rate": by_hand(0.25, 0.1), "higher-rate": by_hand(0.25, 10.0),
        "without-vq": by_hand(0.25, 1.0, bypass=True),
    }  # fmt: skip
    assert measured.loss_unchanged == pytest.approx(by_hand(0.25, 1.0), rel=1e-5)
    assert measured.loss_before == pytest.approx(by_hand(0.25, 1.0, steps=0), rel=1e-5)
    for name, loss in expected.items():
        i = measured.names.index(name)
        assert measured.loss[i] == pytest.approx(loss, rel=1e-5), name
        if measured.runs[i] == 1:
            gain = (measured.loss_unchanged - loss) / measured.loss_unchanged
            assert measured.gain[i] == pytest.approx(gain, rel=1e-3, abs=1e-5)
    assert (measured.optimizer, measured.own, measured.learning_rate) == ("SGD", True, 0.05)
    assert (measured.vq_weight, measured.weight_known, measured.sample_size) == (0.25, True, STEPS)


def test_they_are_the_same_every_time(measured: Experiments) -> None:
    assert ask() == measured


def test_a_change_that_changes_nothing_is_left_out(measured: Experiments) -> None:
    assert "straight-through: the layer has one already" in measured.left_out
    assert "straight-through" not in measured.names
    assert {*measured.names, *(line.partition(":")[0] for line in measured.left_out)} == set(REMOVALS)


def test_where_placed_codes_help_the_others_begin_with_them(measured: Experiments) -> None:
    assert not any(measured.placed)
    assert {*measured.loss_without} == {measured.loss_unchanged}
    got = ask(seen=model(trained=False))
    assert isinstance(got, Experiments)
    first, *others = range(len(got.names))
    assert got.names[first] == "codes-from-data" and got.perplexity_factor[first] > 2
    assert (got.runs[first], got.placed[first]) == (2, False)
    for i in others:
        as_it_was = got.names[i] in experiments.FROM_THE_FILE
        assert got.placed[i] is not as_it_was
        assert got.loss_without[i] == (got.loss_unchanged if as_it_was else got.loss[first])


def test_the_codebook_is_held_still(measured: Experiments) -> None:
    held = measured.loss[measured.names.index("frozen-codebook")]
    assert held not in (measured.loss_unchanged, measured.loss_before)


def test_nothing_is_trained_unless_it_is_asked_for() -> None:
    got = ask(steps=0)
    assert isinstance(got, Unavailable)
    assert got.hint == "--decide"


def test_a_loss_that_runs_away_is_a_number_all_the_same() -> None:
    class Bursting(Task):
        def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.SGD(model.parameters(), lr=1e6)

    got = ask(Bursting())
    assert isinstance(got, Experiments)
    assert got.loss_unchanged == NOT_FINITE


@pytest.mark.parametrize(("last", "rate"), [(0.02, 0.02), (0.0, 0.005), (0.5, 0.05), (None, 0.05)])
def test_a_rate_that_a_schedule_has_lowered_is_not_raised_again(last: float | None, rate: float) -> None:
    seen = model()
    context = replace(lib.context(seen, Task(seen)), experiment_steps=1, last_rate=last)
    (got,) = experiments.PROBE.measure(context)
    assert isinstance(got, Experiments)
    assert got.learning_rate == pytest.approx(rate)


def test_too_few_batches_show_no_spread() -> None:
    class Few(Task):
        def batches(self, split: str) -> Iterator[Any]:
            return itertools.islice(super().batches(split), 2)

    got = ask(Few())
    assert isinstance(got, Unavailable)
    assert got.reason == "an effect takes 3 batches to be told from chance; the task serves 2"


@pytest.mark.parametrize("form", [list, dict, "opaque"])
def test_samples_are_shuffled_in_whatever_holds_them(form: Any) -> None:
    class Held(Task):
        def batches(self, split: str) -> Iterator[Any]:
            for x, y in super().batches(split):
                pair = {"x": x, "y": y} if form is dict else [x, y]
                yield (x[0, 0, 0], *pair) if form == "opaque" else pair

        def losses(self, model: nn.Module, batch: Any) -> Any:
            x, y = (batch["x"], batch["y"]) if form is dict else list(batch)[-2:]
            return super().losses(model, (x, y))

    got = ask(Held(), steps=3)
    assert isinstance(got, Experiments)
    told = [line for line in got.left_out if line.startswith("shuffled-samples")]
    why = "shuffled-samples: the samples of different batches cannot be exchanged"
    assert told == ([why] if form == "opaque" else [])


def test_only_an_experiment_that_seems_to_help_is_run_twice() -> None:
    got = ask(steps=12, seen=model(trained=False))
    assert isinstance(got, Experiments)
    twice = {name for name, runs in zip(got.names, got.runs, strict=True) if runs == 2}
    assert twice and twice < set(got.names)
    assert "without-vq" not in twice


def test_z_e_is_brought_to_the_scale_of_the_codes() -> None:
    seen = model()
    with torch.no_grad():
        seen.encoder.weight.mul_(300)
        seen.encoder.bias.mul_(300)
    context = replace(lib.context(seen, Task(seen)), experiment_steps=2, experiments=("scaled-z-e",))
    (got,) = experiments.PROBE.measure(context)
    assert isinstance(got, Experiments)
    assert got.names == ("scaled-z-e",), got.left_out
    assert got.changes[0].startswith("z_e divided by ")
    assert got.perplexity_factor[0] > 2, "the scaled vectors choose more codes"


def test_no_experiment_is_run_where_none_is_needed() -> None:
    seen = model()
    context = replace(lib.context(seen, Task(seen)), experiment_steps=2, experiments=())
    (got,) = experiments.PROBE.measure(context)
    assert isinstance(got, Unavailable)
    assert got.reason == experiments.NOTHING_OPEN


def test_a_weight_of_zero_is_neither_raised_nor_lowered() -> None:
    class Weightless(Task):
        vq_weight = 0.0

    seen = model()
    got = ask(Weightless(seen), steps=2, seen=seen)
    assert isinstance(got, Experiments)
    assert not {"lighter-vq-loss", "heavier-vq-loss"} & {*got.names}
    assert any(line.startswith("lighter-vq-loss: the VQ loss has weight 0") for line in got.left_out)
