"""The bench's second half: what is treated, how it is counted, and one model treated for real."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fault_bench import treat
from fault_bench.sample import DEVELOPMENT, HELD, sample
from fault_bench.table import key
from fault_bench.treat import HOW, Treatment, chosen, markdown, treatments


def test_both_parts_are_treated_by_their_share() -> None:
    models = sample(400)
    some = chosen(models, 80, seed=0)
    assert some == chosen(models, 80, seed=0) != chosen(models, 80, seed=1)
    assert all(model.kinds for model in some)
    parts = [model.part for model in some]
    sick = [model.part for model in models if model.kinds]
    assert len(parts) == 80
    assert parts.count(HELD) == round(80 * sick.count(HELD) / len(sick))
    assert parts.count(DEVELOPMENT) + parts.count(HELD) == 80


def _treatment(how: str = "plan", after: float = 0.8, **more: object) -> Treatment:
    figures = {"before": (0.5, 1.0, 5.0, 0.1), "after": (after, 0.5, 60.0, 0.01)}
    return Treatment(**{"number": 0, "key": "", "tool": "", "how": how, "cured": True, **figures, **more})


@pytest.mark.parametrize(("after", "worse"), [(0.8, False), (0.495, False), (0.48, True)])
def test_a_model_is_judged_by_its_own_task(after: float, worse: bool) -> None:
    assert _treatment(after=after).worse == worse


@pytest.mark.parametrize(("loss", "worse"), [(1.0, False), (1.005, False), (1.02, True)])
def test_without_labels_its_loss_is_its_task(loss: float, worse: bool) -> None:
    treatment = replace(_treatment(), before=(None, 1.0, 5.0, None), after=(None, loss, 60.0, None))
    assert treatment.worse == worse


def test_a_treatment_is_read_back() -> None:
    treatment = _treatment(remedies=("data-init",), missed=("usage",), ended="plateau")
    assert Treatment.read(json.dumps(asdict(treatment))) == treatment


def test_the_table_counts_what_became_of_them(tmp_path: Path) -> None:
    model = chosen(sample(400), 80, seed=0)[0]
    those = (
        _treatment(after=0.4),
        _treatment("trial", cured=False, missed=("accuracy", "usage", "usage")),
        _treatment("random", refused="the cause stands in your source", cured=False),
        _treatment("held", cured=False, ended="nothing"),
    )
    text = markdown([(model, those)], tmp_path)
    assert "| plan | 1 (100%) | 0 | 0 | 0 | 0 | 1 | 0 | 0 |" in text
    assert "| trial | 0 (0%) | 1 | 0 | 0 | 0 | 0 | 0 | 0 |" in text
    assert "| random | 0 (0%) | 0 | 0 | 1 | 0 | 0 | 0 | 0 |" in text
    assert (
        "| held | 0 (0%) | 0 | 1 | 0 | 0 | 0 | 0 | 0 |" in text
        and "nothing to cure: all goals held |" in text
    )
    assert "0.500 → 0.400" in text
    assert "misses accuracy, usage |" in text
    assert "refused: the cause stands in your source |" in text
    assert f"vqdoctor fix {tmp_path}/models/" in text


def test_what_is_treated_is_not_treated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = sample(400)[0]

    def treated(model: object, folder: Path, epochs: int, ways: Sequence[str]) -> tuple[Treatment, ...]:
        return tuple(_treatment(how, key=key(sample(400)[0].setup), tool=treat.tool()) for how in ways)

    monkeypatch.setattr(treat, "treated", treated)
    done = list(treatments([model], tmp_path))
    monkeypatch.setattr(treat, "treated", None)
    assert list(treatments([model], tmp_path)) == done
    assert [t.how for t in next(treatments([model], tmp_path, ways=("random",)))[1]] == ["plan", "random"]


@pytest.mark.accept
def test_a_model_is_treated_in_each_way(tmp_path: Path) -> None:
    model = next(m for m in sample(400) if m.name == "codebook never moved" and m.part == DEVELOPMENT)
    ((_, those),) = treatments([model], tmp_path, epochs=2)
    assert [treatment.how for treatment in those] == list(HOW)
    assert not any(treatment.crash or treatment.refused for treatment in those)
    plan, trial, chance = those
    assert plan.epochs == trial.epochs == 2
    assert len(chance.remedies) <= len(plan.remedies)
    assert plan.before == trial.before == chance.before
