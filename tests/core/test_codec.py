"""Reports and states survive JSON, and a damaged or forged one is refused by the name of its field."""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from cured import FIGURES
from gate_reports import METRICS, a_crash, a_finding, a_report, a_usage, no_usage

from vqdoctor.cli.main import main
from vqdoctor.core.assertion import GateRules, parse_assertion
from vqdoctor.core.codec import decode, encode
from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import Evidence
from vqdoctor.core.finding import Measurement
from vqdoctor.core.gate import Gate, Judgement
from vqdoctor.core.levels import Confidence, Stage
from vqdoctor.core.report import Candidate, Change, PlanStep, Repair, Report
from vqdoctor.core.retraining import Arm, Epoch, Goals, Retraining, SourceChange
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.engine.gate import Policy, Source, judge_all
from vqdoctor.render import RenderOptions, renderer_of

WHOLE = a_report(
    a_usage(20, 1),
    METRICS,
    findings=(a_finding("VQ101", measurements=(Measurement(name="ratio", value=0.1),), rank=1),),
    plan=(PlanStep(step=1, remedy="straight-through", codes=("VQ101",), how="Do it."),),
    unavailable=(no_usage(),),
    outcomes=(a_crash(),),
    candidates=(Candidate(key="a.weight", shape=(8, 4), why="8 rows of 4"),),
    notes=("a note",),
    repairs=(
        Repair(
            remedy="reset-ema",
            status="applied",
            before={"dead": 3.0},
            after={"dead": 0.0},
            layer="vq",
            changes=(Change(key="vq.embed", what="3 of 256 codes", before={"largest": 9.0}),),
        ),
    ),
    gate=Gate.of(
        [
            Judgement(
                metric="perplexity",
                layer="vq",
                relation=">=",
                threshold=50.0,
                value=20.0,
                low=19.0,
                high=21.0,
                status="fail",
                level="error",
                reason="20 against at least 50",
                aggregate="median",
            )
        ],
        hidden=("VQ503:vq",),
        failing=("VQ101:vq",),
    ),
    retraining=Retraining(
        plan=TrainingPlan(estimators={"vq": "rotation"}),
        epochs=(Epoch(epoch=1, task_loss=1.0, vq_loss=None, vq_weight=0.1, revived=3, stop=FIGURES),),
        before=FIGURES,
        after=FIGURES,
        goals=Goals().compare(FIGURES),
        trial=(Arm(name="the plan", remedies=("data-init",), epochs=5, figures=FIGURES, chosen=True),),
        source=(SourceChange(why="It lacks one.", code="z_q = z_e"),),
    ),
)  # fmt: skip

POLICY = Policy(
    rules=GateRules(
        assertions=tuple(parse_assertion(text, "--require") for text in ("perplexity>=50", "dead<=0.5"))
    )
)


@dataclass(frozen=True, kw_only=True)
class Part:
    derived: ClassVar = ("doubled", "elsewhere")
    number: float = field(metadata={"json": "figure"})
    whole: int = 0
    yes: bool = False
    text: str = ""
    names: tuple[str, ...] = ()
    by_name: Mapping[str, float] = field(default_factory=dict)
    one: Literal["a", "b"] | None = None
    how_sure: Confidence = Confidence.LOW
    stage: Stage = Stage.LOSS
    more: Part | None = None

    @property
    def doubled(self) -> float:
        return 2 * self.number


def test_a_dataclass_is_written_field_by_field_and_read_back() -> None:
    part = Part(number=1, names=("x",), by_name={"y": 2.5}, how_sure=Confidence.HIGH, more=Part(number=3.0))
    plain = json.loads(json.dumps(encode(part)))
    more = {**encode(Part(number=3.0)), "doubled": 6.0}
    assert list(plain.items()) == [
        ("figure", 1), ("whole", 0), ("yes", False), ("text", ""), ("names", ["x"]), ("by_name", {"y": 2.5}),
        ("one", None), ("how_sure", "high"), ("stage", 2), ("more", more), ("doubled", 2),
    ]  # fmt: skip
    again = decode(Part, {**plain, "elsewhere": "said by another"}, "part")
    assert again == part
    assert decode(Part, {"figure": 1}, "part") == Part(number=1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"figure": "1"}, "part.figure is '1'"),
        ({"figure": True}, "part.figure is True"),
        ({"figure": float("nan")}, "part.figure is nan"),
        ({"figure": float("inf")}, "part.figure is inf"),
        ({"figure": 10**400}, "part.figure is 1000"),
        ({"figure": None}, "part.figure is None"),
        ({"whole": 1.0}, "part.whole is 1.0"),
        ({"yes": 1}, "part.yes is 1"),
        ({"text": ["a"]}, "part.text is list"),
        ({"names": "a"}, "part.names is 'a'"),
        ({"names": ["a", 2]}, "part.names[1] is 2"),
        ({"by_name": {"y": "x"}}, "part.by_name.y is 'x'"),
        ({"by_name": []}, "part.by_name is list"),
        ({"one": "c"}, "part.one is 'c'"),
        ({"one": {}}, "part.one is dict"),
        ({"how_sure": "HIGH"}, "part.how_sure is 'HIGH'"),
        ({"how_sure": 3}, "part.how_sure is 3"),
        ({"stage": 7}, "part.stage is 7"),
        ({"stage": True}, "part.stage is True"),
        ({"more": 3}, "part.more is 3"),
        ({"more": {"figure": None}}, "part.more.figure is None"),
        ({"more": {}}, "part.more has no figure"),
        ({"number": 1}, "part.number is unknown"),
    ],
)
def test_a_value_that_does_not_fit_is_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=f"^the part is damaged: {re.escape(says)}"):
        decode(Part, {"figure": 1.0, **changes}, "part")


def test_one_of_several_kinds_is_told_by_its_kind() -> None:
    assert encode(METRICS)["kind"] == "task-metrics"
    assert decode(Evidence, encode(METRICS), "evidence") == METRICS
    for kind in ("no-such", None, ["task-metrics"]):
        with pytest.raises(UserError, match=r"evidence\.kind is "):
            decode(Evidence, {**encode(METRICS), "kind": kind}, "evidence")


def test_a_whole_report_survives_json() -> None:
    assert Report.from_dict(json.loads(WHOLE.to_json())) == WHOLE
    retraining = WHOLE.to_dict()["retraining"]
    assert (retraining["course"]["estimators"], retraining["cured"]) == ({"vq": "rotation"}, True)


def parts(value: Any) -> Iterator[object]:
    """Yield every dataclass in a value."""
    if is_dataclass(value):
        yield value
        value = [getattr(value, field.name) for field in fields(value)]
    values = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    )
    for item in values:
        yield from parts(item)


def test_the_whole_report_has_every_class_of_the_schema() -> None:
    """So the test below meets every field; two kinds of evidence stand for all, which have the same types."""
    assert {type(part).__name__ for part in parts(WHOLE)} == {
        "Report", "CheckpointSummary", "LayerSummary", "Finding", "Measurement", "PlanStep", "Unavailable",
        "Usage", "TaskMetrics", "Outcome", "Candidate", "Repair", "Change", "Gate", "Judgement", "Retraining",
        "TrainingPlan", "Epoch", "Figures", "LayerFigures", "Goal", "Arm", "SourceChange",
    }  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value of a report but those that the rest tells."""
    if at and at[-1] in ("usage", "usage_by_source", "model"):
        return
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


def changed(text: str, place: tuple[Any, ...], value: object) -> dict[str, Any]:
    new: dict[str, Any] = json.loads(text)
    inner: Any = new
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return new


def test_no_value_in_a_saved_report_makes_a_bug_or_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One place of every field takes every value of JSON; of those that fit, one is gated and shown."""
    monkeypatch.chdir(tmp_path)
    whole, draw, forged = WHOLE.to_json(), random.Random(0), []
    of_field: dict[tuple[str, Any], list[tuple[Any, ...]]] = defaultdict(list)
    for place in places(json.loads(whole)):
        owner = next((key for key in reversed(place[:-1]) if isinstance(key, str)), "")
        of_field["figures" if owner in ("before", "after", "stop") else owner, place[-1]].append(place)
    assert len(of_field) > 150
    for found in of_field.values():
        place, fitting = draw.choice(found), []
        for value in (None, 0, -1, 0.5, True, "x", [], {}):
            report = changed(whole, place, value)
            with contextlib.suppress(UserError):
                Report.from_dict(report)
                fitting.append(json.dumps(report))
        forged += [draw.choice(fitting)] if fitting else []
    assert len(forged) > 120
    for text in forged:
        (tmp_path / "r.json").write_text(text)
        with contextlib.suppress(UserError):
            judged = judge_all(Source(paths=(Path("r.json"),)), POLICY)
            assert judged.exit_code in (1, 2, 3)
            renderer = renderer_of(draw.choice(("rich", "sarif")))
            assert renderer.render_all(judged.reports, RenderOptions())
    for text in draw.sample(forged, 5):
        (tmp_path / "r.json").write_text(text)
        assert main(["gate", "r.json", "--min-perplexity", "50", "--max-dead", "0.5"]) in (1, 2, 3)
        assert "has a bug" not in capsys.readouterr().err
