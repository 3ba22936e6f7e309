"""Assertions of a gate, as options and pyproject.toml write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from vqdoctor.core.assertion import METRICS, GateRules, Threshold, parse_assertion
from vqdoctor.core.configure import configure
from vqdoctor.core.errors import UserError


@pytest.mark.parametrize(
    ("text", "metric", "relation", "threshold", "layer"),
    [
        ("perplexity>=200@rvq.layers.0", "perplexity", ">=", Threshold(value=200), "rvq.layers.0"),
        (" Perplexity >= 0.2K ", "perplexity", ">=", Threshold(value=0.2, of_codes=True), None),
        ("perplexity<=1,000", "perplexity", "<=", Threshold(value=1000), None),
        ("perplexity<=1K", "perplexity", "<=", Threshold(value=1, of_codes=True), None),
        ("usage>=40%@vq*", "usage", ">=", Threshold(value=0.4), "vq*"),
        ("dead<=.5", "dead", "<=", Threshold(value=0.5), None),
        ("accuracy>=9e-1", "accuracy", ">=", Threshold(value=0.9), None),
    ],
)
def test_an_expression(text: str, metric: str, relation: str, threshold: Threshold, layer: str) -> None:
    found = parse_assertion(text, "--require")
    assert (found.metric, found.relation, found.layer, found.level) == (metric, relation, layer, "error")
    assert found.threshold.value == pytest.approx(threshold.value)
    assert found.threshold.of_codes == threshold.of_codes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("perplexty>=2", "there is no metric perplexty: did you mean perplexity? known: accuracy, dead, ece"),
        ("perplexity>2", "not of the form METRIC>=NUMBER[@LAYER]"),
        ("perplexity>=", "not of the form"),
        ("perplexity>=x", "'x' is not a number"),
        ("perplexity>=K", "'K' is not a number"),
        ("perplexity>=50%", "50% is not a number of codes: write 0.5K for 50 % of the codes"),
        ("perplexity>=-5", "-5 is out of range"),
        ("perplexity>=nan", "not a number"),
        ("perplexity>=1e999", "not a finite number"),
        ("perplexity>=1,5", "'1,5' is not a number"),
        ("perplexity>=2K", "which is the number of codes: write 2000, or a part of K, such as 0.2K"),
        ("usage>=40", "40 is out of range: write a share, such as 0.4 or 40%"),
        ("usage>=0.2K", "0.2K is out of range"),
        ("accuracy>=0.9@vq", "accuracy is of the whole model: leave out @vq"),
    ],
)
def test_a_wrong_expression_is_told_with_what_can_be(text: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        parse_assertion(text, "--require")
    assert says in str(error.value)
    assert str(error.value).startswith("--require ")


def test_a_multiple_of_k_is_of_each_layers_codes() -> None:
    assert Threshold(value=0.2, of_codes=True).of(512) == pytest.approx(102.4)
    assert Threshold(value=50).of(512) == 50


def test_a_layer_or_a_pattern_or_all() -> None:
    def about(text: str, layer: str) -> bool:
        return parse_assertion(text, "--require").is_about(layer)

    assert about("usage>=0", "rvq.layers.3")
    assert about("usage>=0@rvq.*", "rvq.layers.3") and not about("usage>=0@rvq.*", "vq")
    assert about("usage>=0@a[0]", "a[0]")
    assert not about("accuracy>=0", "vq")


def test_every_metric_has_an_option_with_its_better_side(tmp_path: Path) -> None:
    for name, metric in METRICS.items():
        assert metric.name == name and metric.option.endswith(name)
        assert metric.option.startswith("min-" if metric.better == ">=" else "max-")
        (found,) = rules_of(tmp_path, {f"gate.{metric.option}": 0.5}).assertions
        assert (found.metric, found.relation, found.layer) == (name, metric.better, None)


def rules_of(folder: Path, flags: Mapping[str, object]) -> GateRules:
    return configure(folder, flags)[0].gate


PYPROJECT = """
[tool.vqdoctor.gate]
min-perplexity = "0.2K"
min-usage = { value = 0.4, level = "warn" }
max-dead = { value = "60%", level = "off" }
require = ["perplexity>=200@rvq.layers.0", { assert = "usage>=0.9@vq", level = "warn" }]
max-drop = "5%"
aggregate = "median"
inconclusive = "fail"
"""


def test_the_table_of_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    rules = rules_of(tmp_path, {})
    assert [(a.metric, a.level) for a in rules.assertions] == [
        ("perplexity", "error"), ("usage", "warn"), ("perplexity", "error"), ("usage", "warn"),
    ]  # fmt: skip
    assert (rules.max_drop, rules.aggregate, rules.inconclusive) == (pytest.approx(0.05), "median", "fail")


def test_an_option_overrides_its_own_limit_and_requirements_add_up(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    flags = {"min-usage": "0.7", "require": ["dead<=0.1"], "max-ece": None, "aggregate": "worst"}
    rules = rules_of(tmp_path, {f"gate.{name}": value for name, value in flags.items()})
    assert [(a.metric, a.threshold.value, a.level) for a in rules.assertions] == [
        ("perplexity", 0.2, "error"), ("usage", 0.7, "error"),
        ("perplexity", 200, "error"), ("usage", 0.9, "warn"), ("dead", 0.1, "error"),
    ]  # fmt: skip
    assert rules.aggregate == "worst"


def test_nothing_told_is_no_rule(tmp_path: Path) -> None:
    assert rules_of(tmp_path, {}) == GateRules()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("min-perplexty = 5", "tool.vqdoctor.gate.min-perplexty: no such setting: did you mean min-perplex"),
        (
            "min-usage = { value = 0.4, level = 'loud' }",
            "min-usage.level: 'loud' is none of off, warn, error",
        ),
        ("min-usage = { level = 'warn' }", "min-usage: the table has no value"),
        ("min-usage = { value = 0.4, at = 'vq' }", "min-usage.at: no such setting"),
        ("min-usage = true", "True is not a finite number"),
        ("require = [3]", "3 is not an assertion"),
        ("require = [{ assert = 'x' }]", "not of the form"),
        ("aggregate = 'mean'", "'mean' is none of median, worst"),
        ("inconclusive = 'skip'", "'skip' is none of pass, fail"),
        ("max-drop = '200%'", "out of range"),
    ],
)
def test_what_is_wrong_in_the_table_is_said_with_its_place(tmp_path: Path, table: str, says: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.vqdoctor.gate]\n{table}\n")
    with pytest.raises(UserError, match=r"pyproject\.toml") as error:
        configure(tmp_path, {})
    assert says in str(error.value)


def test_a_wrong_option_is_named_as_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--min-usage: 40 is out of range"):
        configure(tmp_path, {"gate.min-usage": "40"})
    (tmp_path / "pyproject.toml").write_text("[tool.vqdoctor]\ngate = 3\n")
    with pytest.raises(UserError, match=r"tool\.vqdoctor\.gate: not a table"):
        configure(tmp_path, {})
