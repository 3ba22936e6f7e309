"""A slice of the bench: its machinery works, and ten models are called by what is wrong with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fault_bench import bench
from fault_bench.bench import Row, Verdict, verdicts
from fault_bench.kinds import KINDS, PAIRS
from fault_bench.sample import DEVELOPMENT, HELD, HELD_OUT, HELD_OUT_DATA, Model, sample
from fault_bench.summary import markdown, picture
from vqdoctor.checks import all_checks

SLICE = (2, 9, 10, 29, 32, 39, 46, 48, 53, 59)
"""Ten of the development part: three healthy ones, and seven kinds of fault on as many implementations."""


@pytest.fixture(scope="module")
def models() -> list[Model]:
    return sample(400)


def test_the_sample_is_drawn_as_it_is_described(models: list[Model]) -> None:
    assert [model.number for model in models] == list(range(400))
    assert models == sample(400)
    assert models != sample(400, seed=1)
    count = Counter((model.part, bool(model.kinds)) for model in models)
    assert count[DEVELOPMENT, False] + count[HELD, False] == 120
    assert count[HELD, True] >= 120
    assert len({model.setup.implementation for model in models}) >= 12
    assert {kind.name for model in models for kind in model.kinds} == set(KINDS)
    for model in models:
        held = model.setup.implementation in HELD_OUT or model.setup.data.startswith(HELD_OUT_DATA[:-1])
        assert held == (model.part == HELD)


def test_a_sick_model_differs_from_its_twin_and_a_healthy_one_has_none(models: list[Model]) -> None:
    for model in models:
        assert (model.setup == model.twin) == (not model.kinds)


def test_every_answer_is_a_code_that_the_tool_knows() -> None:
    known = {check.code for check in all_checks()}
    for kind in KINDS.values():
        assert kind.codes | kind.accepts_bare <= known


def test_the_faults_of_a_pair_do_not_undo_each_other() -> None:
    for pair in PAIRS:
        first, second = ({**kind.fault.base, **kind.fault.switch} for kind in pair)
        assert all(first[name] == second[name] for name in first.keys() & second.keys()), pair


def _verdict(model: Model, *live: str, errors: tuple[str, ...] = (), figure: float = 0.5) -> Verdict:
    roots = tuple((code, "error", "") for code in live)
    row = Row(
        number=model.number,
        key="",
        tool="",
        live=roots,
        bare=roots,
        live_errors=errors,
        figure=figure,
        twin=0.5,
    )
    return Verdict(model=model, row=row)


def _pick(models: list[Model], name: str) -> Model:
    return next(model for model in models if model.name == name)


def test_a_verdict_goes_by_the_first_finding_and_by_the_harm(models: list[Model]) -> None:
    cut = _pick(models, "detached after the layer")
    assert _verdict(cut, "VQ102", "VQ501").right_live
    assert not _verdict(cut, "VQ501", "VQ102").right_live
    assert not _verdict(cut).right_live
    assert not cut.kinds[0].told_by_file(cut.setup.implementation)
    assert not _verdict(cut, "VQ102").told
    worse = 0.5 * 1.3 if not cut.labelled else 0.5 - 0.06
    assert _verdict(cut, "VQ102", figure=worse).missed
    assert not _verdict(cut, "VQ102", errors=("VQ102",), figure=worse).missed
    well = _pick(models, "healthy")
    assert _verdict(well, "VQ603").right_live
    assert not _verdict(well, "VQ603", errors=("VQ603",)).right_live


def test_a_pair_wants_both_first(models: list[Model]) -> None:
    pair = next(model for model in models if len(model.kinds) == 2)
    first, second = (min(kind.codes) for kind in pair.kinds)
    assert _verdict(pair, second, first).both
    assert _verdict(pair, first, "VQ501", second).right_live
    assert not _verdict(pair, first, "VQ501", second).both


def test_what_is_missed_is_told_with_its_command(models: list[Model], tmp_path: Path) -> None:
    cut, well = _pick(models, "detached after the layer"), _pick(models, "healthy")
    said = [_verdict(cut, "VQ501"), _verdict(well)]
    text = markdown(said, tmp_path)
    path = bench.file(cut, tmp_path)
    assert f"vqdoctor inspect {path} --task {path.with_suffix('.py')}:task" in text
    assert "| first right, live | 0 | 1 | 0.0% | 92 % |" in text
    assert "| healthy without an error, live | 1 | 1 | 100.0% | 100 % |" in text
    picture(said, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 1000


def test_what_is_done_is_not_done_again(
    models: list[Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = replace(models[2], setup=replace(models[2].setup, steps=1), twin=replace(models[2].setup, steps=1))
    (done,) = verdicts([tiny], tmp_path)
    assert not done.row.crash
    monkeypatch.setattr(bench, "examined", None)
    assert list(verdicts([tiny], tmp_path)) == [done]
    changed = replace(tiny, setup=replace(tiny.setup, steps=2))
    with pytest.raises(TypeError):
        list(verdicts([changed], tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [SLICE[::2], SLICE[1::2]], ids=["five", "five others"])
def test_models_are_called_by_what_is_wrong_with_them(
    numbers: tuple[int, ...], models: list[Model], tmp_path: Path
) -> None:
    done = list(verdicts([models[number] for number in numbers], tmp_path, twins=False))
    assert {verdict.row.crash for verdict in done} == {""}
    assert [verdict.model.name for verdict in done if verdict.missed] == []
