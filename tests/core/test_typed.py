"""A report that was read back has the types that its classes say, or is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gate_reports import METRICS, a_crash, a_finding, a_report, a_usage, no_usage

from vqdoctor.cli.main import main
from vqdoctor.core.errors import UserError
from vqdoctor.core.finding import Measurement
from vqdoctor.core.report import PlanStep, Report
from vqdoctor.core.typed import misfits

WHOLE = a_report(
    a_usage(20, 1),
    METRICS,
    findings=(a_finding("VQ101", measurements=(Measurement(name="ratio", value=0.1),), rank=1),),
    plan=(PlanStep(step=1, remedy="straight-through", codes=("VQ101",), how="Do it."),),
    unavailable=(no_usage(),),
    outcomes=(a_crash(),),
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


@dataclasses.dataclass
class Part:
    number: float
    names: tuple[str, ...] = ()
    more: Part | None = None


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (Part(1.0, ("a",), Part(2)), []),
        (Part("1"), ["p.number is '1'"]),  # type: ignore[arg-type]
        (Part(True), ["p.number is True"]),
        (Part(float("nan")), ["p.number is nan"]),
        (Part(1, ["a"]), ["p.names is list"]),  # type: ignore[arg-type]
        (Part(1, ("a", 2)), ["p.names[1] is 2"]),  # type: ignore[arg-type]
        (Part(1, more=Part(None)), ["p.more.number is None"]),  # type: ignore[arg-type]
        (Part(1, more=3), ["p.more is 3"]),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_fit_is_named(part: Part, says: list[str]) -> None:
    assert list(misfits(part, "p")) == says


@pytest.mark.parametrize("value", [None, 0, -1, 0.5, True, "x", [], {}])
def test_no_value_in_a_saved_report_makes_a_bug_or_a_pass(
    value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = WHOLE.to_dict()
    for format, place in [(format, place) for format in ("rich", "sarif") for place in places(whole)]:
        changed: Any = copy.deepcopy(whole)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        try:
            Report.from_dict(changed)
        except UserError:
            continue
        (tmp_path / "r.json").write_text(json.dumps(changed))
        code = main(["gate", "r.json", "-f", format, "--min-perplexity", "50", "--max-dead", "0.5"])
        assert code in (1, 2, 3), place
        assert "has a bug" not in capsys.readouterr().err, place
