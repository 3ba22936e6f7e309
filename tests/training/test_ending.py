from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
from cured import FIGURES, LAYER

from vqdoctor.core.retraining import Epoch, Figures, Goals
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.training.clock import Clock
from vqdoctor.training.ending import PATIENCE, PLATEAU, Ending, _fell

PLAN = TrainingPlan(epochs=50, warm_up_epochs=3)
COOL_DOWN = Ending(plan=PLAN, goals=None).cool_down
GOALS = Goals(min_accuracy=0.99)  # which FIGURES never reach
COLLAPSED = {"vq": replace(LAYER, perplexity=2.0)}


def figures(loss: float, **more: object) -> Figures:
    return replace(FIGURES, loss=loss, **more)  # type: ignore[arg-type]


def after(ending: Ending, stops: Iterable[Figures]) -> list[int]:
    """Take epochs into account until the training ends; return the epochs that a cool-down started from."""
    taken = []
    for stop in stops:
        if ending.finished:
            break
        number = ending.done + 1
        row = Epoch(epoch=number, task_loss=1.0, vq_loss=None, vq_weight=0.1, revived=0, stop=stop)
        state = ending.after_epoch(row, {"epoch": number})
        taken += [] if state is None else [state["epoch"]]
    return taken


def test_a_loss_that_falls_no_further_ends_the_training_from_its_lowest_epoch() -> None:
    ending = Ending(plan=PLAN, goals=GOALS)
    losses = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, *([0.55] * 40)]
    assert after(ending, map(figures, losses)) == [6]
    assert (ending.reason, ending.done) == ("plateau", 6 + PLATEAU + COOL_DOWN)


def test_a_loss_that_keeps_falling_is_awaited_to_the_last_epoch() -> None:
    ending = Ending(plan=PLAN, goals=GOALS)
    assert after(ending, (figures(1 / (1 + epoch)) for epoch in range(60))) == []
    assert (ending.reason, ending.done) == ("budget", PLAN.epochs)


def test_a_loss_that_keeps_falling_is_given_more_epochs_up_to_a_bound() -> None:
    ending = Ending(plan=replace(PLAN, further_epochs=20), goals=GOALS)
    assert after(ending, (figures(0.9**epoch) for epoch in range(90))) == []
    assert (ending.reason, ending.done) == ("budget", PLAN.epochs + 20)


def test_the_clock_leaves_the_cool_down_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("vqdoctor.training.clock.time.monotonic", lambda: now)
    ending = Ending(plan=PLAN, goals=GOALS, clock=Clock(ends=300.0, _begun=0.0))

    while not ending.finished:
        now += 10.0  # an epoch
        stop = figures(1 / now)
        row = Epoch(epoch=ending.done + 1, task_loss=1.0, vq_loss=None, vq_weight=0.1, revived=0, stop=stop)
        assert ending.after_epoch(row, {}) is None
    assert (ending.reason, ending.done, ending.cooled) == ("time", 30, COOL_DOWN)


def test_no_more_epochs_are_given_than_the_loss_needs() -> None:
    ending = Ending(plan=replace(PLAN, further_epochs=100), goals=GOALS)
    slow = [0.9**epoch for epoch in range(60)]
    slow += [slow[-1] * 0.999**epoch for epoch in range(100)]  # 1 % in ten epochs
    assert after(ending, map(figures, slow)) == []
    assert ending.reason == "epochs"
    assert 60 < ending.done < 60 + PLATEAU + COOL_DOWN + 2


@pytest.mark.parametrize(
    ("before", "after", "fell"),
    [(1.0, 0.94, True), (1.0, 0.96, False), (-1.0, -1.04, False), (-1.0, -1.06, True), (math.inf, 9.0, True)],
)
def test_a_loss_below_0_falls_as_one_above(before: float, after: float, fell: bool) -> None:
    assert _fell(before, after) is fell


def test_a_last_epoch_by_chance_is_not_where_the_cool_down_starts() -> None:
    ending = Ending(plan=PLAN, goals=GOALS)
    first = PLAN.epochs - COOL_DOWN
    losses = [*(1 / (1 + epoch) for epoch in range(first - 2)), 0.5, 0.6, *([0.5] * COOL_DOWN)]
    assert after(ending, map(figures, losses)) == [first - 2]
    assert (ending.reason, ending.done) == ("budget", PLAN.epochs)


@pytest.mark.parametrize(("cooled", "result"), [(0.4, 6 + PLATEAU + 2), (0.6, 6)])
def test_the_lowest_loss_is_the_result_before_the_cool_down_or_in_it(cooled: float, result: int) -> None:
    ending = Ending(plan=PLAN, goals=GOALS)
    losses = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, *([0.55] * PLATEAU), 0.7, cooled, *([0.7] * COOL_DOWN)]
    assert after(ending, map(figures, losses)) == [6]
    assert ending.result == {"epoch": result} and ending.result_at == result
    assert (ending.reason, ending.done) == ("plateau", 6 + PLATEAU + COOL_DOWN)


def test_an_epoch_whose_codebook_is_collapsed_is_never_the_best() -> None:
    """Also where its task loss is the lowest: a collapsed layer may be easy on the task."""
    ending = Ending(plan=PLAN, goals=GOALS)
    stops = [*(figures(0.1, layers=COLLAPSED) for _ in range(20)), figures(0.9), *[figures(1.0)] * 29]
    assert after(ending, stops) == [21]


def test_goals_that_hold_end_it_once_the_loss_falls_no_further() -> None:
    ending = Ending(plan=PLAN, goals=Goals(min_accuracy=0.9))
    falling = [0.9**epoch for epoch in range(20)]
    assert after(ending, map(figures, [*falling, *([falling[-1]] * 40)])) == [20]
    assert (ending.reason, ending.done) == ("goals", 20 + PLATEAU + COOL_DOWN)
    assert ending.result_at == 20


def test_a_few_looks_do_not_tell_that_the_loss_falls_no_further() -> None:
    ending = Ending(plan=PLAN, goals=Goals(min_accuracy=0.9))
    after(ending, map(figures, [0.5] * 60))
    assert (ending.reason, ending.done) == ("goals", PLAN.warm_up_epochs + PATIENCE + COOL_DOWN)


def test_an_epoch_without_vq_is_no_result() -> None:
    """Also where the weight of the VQ loss does not warm up: the codes are placed after that epoch."""
    plan = replace(PLAN, bypass_epochs=4, warm_up_epochs=0)
    ending = Ending(plan=plan, goals=GOALS)
    assert after(ending, map(figures, [0.1] * 4 + [0.5] * 46)) == [5]
    assert ending.result_at == 5


def test_goals_that_leave_the_task_open_end_nothing_while_its_loss_falls() -> None:
    """A task without labels has no accuracy to reach, and its codebooks are soon in use."""
    ending = Ending(plan=PLAN, goals=Goals())
    falling = (figures(1 / (1 + epoch), accuracy=None, ece=None) for epoch in range(20))
    assert after(ending, [*falling, *[figures(0.5)] * 40]) == [20]
    assert (ending.reason, ending.done) == ("plateau", 20 + PLATEAU + COOL_DOWN)


def test_without_goals_all_epochs_are_trained() -> None:
    ending = Ending(plan=PLAN, goals=None)
    assert after(ending, [figures(1.0)] * 60) == []
    assert (ending.reason, ending.done) == ("epochs", PLAN.epochs)


def test_the_rate_falls_to_nothing_in_the_cool_down() -> None:
    ending = Ending(plan=PLAN, goals=None)
    rates = []
    while not ending.finished:
        rates.append(ending.rate)
        after(ending, [figures(1.0)])
        if ending.done == 60:
            break
    assert set(rates[:-COOL_DOWN]) == {1.0}
    assert rates[-COOL_DOWN:] == sorted(rates[-COOL_DOWN:], reverse=True) and 0 < rates[-1] < 0.2


@pytest.mark.parametrize(
    ("losses", "steps", "expected"),
    [
        ([2.0] * 50, 0, True),
        ([2.0] * 50, 5, False),  # a row may be one step
        ([2.0 * 0.99**epoch for epoch in range(50)], 0, False),
        ([2.0] * 25, 0, False),  # no more than 17 epochs came before the cool-down
    ],
)
def test_a_loss_has_settled_where_it_fell_no_further_before_the_cool_down(
    losses: list[float], steps: int, expected: bool
) -> None:
    ending = Ending(plan=replace(PLAN, epochs=len(losses), steps=steps), goals=None)
    rows = []
    while not ending.finished:
        stop = figures(losses[ending.done])
        rows.append(
            Epoch(epoch=ending.done + 1, task_loss=1, vq_loss=None, vq_weight=1, revived=0, stop=stop)
        )
        ending.after_epoch(rows[-1], {})
    assert len(rows) == len(losses) and ending.settled(rows) is expected
