"""Results of an ablation as a file: which variants collapsed, and clear words for anything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vqdoctor.cli.main import main
from vqdoctor.core.errors import UserError
from vqdoctor.core.variants import Variant, judged
from vqdoctor.engine.ablate.results import read_results

THEIRS = {
    "no_vq": {"accuracy": 0.93, "perplexity": 0.0, "num_parameters": 40_000},
    "vq": {"accuracy": 0.08, "loss": 2.3, "perplexity": 1.0, "ece": 0.02, "inference_time_ms_p50": 1.4},
    "vq_hdp": {"accuracy": 0.41, "perplexity": 20.0},
    "vq_narrow": {"accuracy": 0.92, "perplexity": 20.0},
    "vq_fixed": {"accuracy": 0.92, "perplexity": 88.0},
    "fsq": {"accuracy": 0.9, "memory_mb": 12.0, "comment": None},
}
STATES = ["without VQ", "collapsed", "collapsed", "low", "in use", "unknown"]


def _written(folder: Path, data: object) -> Path:
    path = folder / "ablation_results.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_the_variants_of_another_framework(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is judged by its own perplexity and by its distance from the best."""
    path = _written(tmp_path, THEIRS)
    assert [variant.state for variant in read_results(path).variants] == STATES
    assert main(["inspect", str(path)]) == 1
    told = capsys.readouterr().out
    assert told.startswith("COLLAPSED: 2 of 6 variants: vq, vq_hdp")
    assert main(["inspect", str(path), "-f", "json", "--fail-on", "never"]) == 0
    assert json.loads(capsys.readouterr().out)["variants"][1]["state"] == "collapsed"


@pytest.mark.parametrize(
    ("perplexity", "codes", "accuracy", "state"),
    [
        (1.99, 8, 0.9, "collapsed"),
        (2.01, 8, 0.9, "in use"),
        (12.7, 64, 0.9, "low"),
        (12.9, 64, 0.9, "in use"),
        (12.7, 64, 0.849, "collapsed"),
        (49.0, None, 0.9, "low"),
        (51.0, None, 0.1, "in use"),
    ],
)
def test_limits(perplexity: float, codes: int | None, accuracy: float, state: str) -> None:
    """A fifth of K, or 50 codes; and five points behind the best."""
    figures = {"accuracy": accuracy, "perplexity": perplexity}
    others = [
        Variant(name="best", figures={"accuracy": 0.9}),
        Variant(name="a", figures=figures, num_codes=codes),
    ]
    assert judged("x.json", others).variants[1].state == state


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("{", "no valid JSON"),
        ([1], "not the results of an ablation"),
        ({}, "not the results of an ablation"),
        ({"a": {"color": 1}}, "a has none of the figures; it holds color"),
        ({"a": {"accuracy": "high"}}, "a.accuracy is 'high'"),
        ({"a": {"perplexity": True}}, "a.perplexity is True"),
        ('{"a": {"perplexity": NaN}}', "NaN|nan|not a finite"),
        ({"a": {"accuracy": -3.0}}, "a.accuracy is -3.0, out of its range"),
        ({"a": {"perplexity": -1.0}}, "a.perplexity is -1.0, out of its range"),
        ({"kind": "vqdoctor-ablation", "schema": 2}, "an ablation of schema 2"),
        ({"schema": 1, "tool": {}}, "a saved report"),
        ({"kind": "vqdoctor-ablation", "cells": 3}, "the ablation in ablation_results.json is damaged"),
    ],
)
def test_anything_else_is_refused_with_its_reason(tmp_path: Path, data: object, says: str) -> None:
    """What, where, and the form that is read."""
    path = _written(tmp_path, data)
    with pytest.raises(UserError, match=says):
        read_results(path)
    assert main(["inspect", str(path)]) == 2


def test_percentages_are_shares(tmp_path: Path) -> None:
    """94.5 % is half a point behind 95 %, and not 50 points."""
    rows = {
        "a": {"accuracy": 95.0, "perplexity": 120.0},
        "b": {"accuracy": 94.5, "perplexity": 30.0},
        "seed": 3,
    }
    found = read_results(_written(tmp_path, rows))
    assert [(v.name, v.figures["accuracy"], v.state) for v in found.variants] == [
        ("a", 0.95, "in use"),
        ("b", 0.945, "low"),
    ]


def test_half_of_a_pair_in_a_name_is_written_out(tmp_path: Path) -> None:
    """JSON can hold a lone surrogate, and no text file can."""
    path = tmp_path / "ablation_results.json"
    path.write_text('{"a\\ud800": {"accuracy": 0.9, "perplexity": 100}}')
    assert main(["inspect", str(path), "-f", "json", "--save", f"json={tmp_path / 'out.json'}"]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["variants"][0]["name"] == "a\\ud800"


def test_without_any_perplexity_it_is_inconclusive(tmp_path: Path) -> None:
    """Accuracy alone says nothing of a codebook."""
    assert main(["inspect", str(_written(tmp_path, {"a": {"accuracy": 0.1}, "b": {"accuracy": 0.9}}))]) == 3


def test_of_several_processes_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results.json").write_text('{"a": {"perplexity": 60}}')
    launched = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("vqdoctor.cli.main.be_quiet", lambda: None)
    saved = tmp_path / "saved.json"
    assert main(["inspect", str(tmp_path / "results.json"), "--save", f"json={saved}"]) == 0
    assert not saved.exists()
    monkeypatch.setenv("RANK", "0")
    assert main(["inspect", str(tmp_path / "results.json"), "--save", f"json={saved}"]) == 0
    assert saved.exists()
