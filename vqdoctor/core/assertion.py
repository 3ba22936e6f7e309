"""Assertions on metrics, which a gate judges, as they are written in options and settings."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from vqdoctor.core.errors import UserError, suggestion
from vqdoctor.core.frozen import frozen
from vqdoctor.core.option import GATE, Kind, Option, choice, declared, is_finite, one_of, option

Relation = Literal[">=", "<="]
Level = Literal["off", "warn", "error"]
Aggregate = Literal["median", "worst"]

LEVELS: tuple[Level, ...] = ("off", "warn", "error")
MAX_DROP = 0.1
"""Default share of a baseline's figure that may be lost."""

_FORM = 'such as "perplexity>=200@rvq.layers.0"'
_EXPRESSION = re.compile(r"\s*([a-z-]+)\s*(>=|<=)\s*([^@\s]+)\s*(?:@\s*(\S+)\s*)?", re.IGNORECASE)
_NUMBER = re.compile(
    r"([+-]?(?:\d{1,3}(?:,\d{3})+|\d[\d_]*)?\.?\d*(?:e[+-]?\d+)?)\s*(%|K)?",  # a comma parts thousands alone
    re.IGNORECASE,
)


@frozen
class Metric:
    """One figure that a gate can compare.

    Attributes:
        name: its name in expressions.
        better: ">=" where more is better, "<=" where less is.
        by_layer: whether every VQ layer has its own.
        share: whether it lies between 0 and 1.
        title: its meaning, in a few words.
        help: the requirement of its option.
        percent: whether people read it in percent.
    """

    name: str
    better: Relation
    by_layer: bool
    share: bool
    title: str
    help: str
    percent: bool = False

    @property
    def option(self) -> str:
        """The option that sets its limit."""
        return f"{'min' if self.better == '>=' else 'max'}-{self.name}"


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="perplexity", better=">=", by_layer=True, share=False,
            title="codes that would, used evenly, carry as much information",
            help="Least perplexity of every VQ layer; K is its number of codes.",
        ),
        Metric(
            name="usage", better=">=", by_layer=True, share=True, percent=True,
            title="share of the codes that are chosen at all",
            help="Least share of the codes that are chosen at all.",
        ),
        Metric(
            name="dead", better="<=", by_layer=True, share=True, percent=True,
            title="share of the codes chosen less than a tenth as often as on even usage",
            help="Largest share of dead codes, under 0.1/K of the usage.",
        ),
        Metric(
            name="ece", better="<=", by_layer=False, share=True,
            title="expected calibration error",
            help="Largest expected calibration error.",
        ),
        Metric(
            name="accuracy", better=">=", by_layer=False, share=True, percent=True,
            title="share of the samples that are classified rightly",
            help="Least accuracy.",
        ),
    )
}  # fmt: skip
OPTIONS: Mapping[str, Metric] = {metric.option: metric for metric in METRICS.values()}


@frozen
class Threshold:
    """A number to compare with: as it is, or as a multiple of the layer's number of codes, K."""

    value: float
    of_codes: bool = False

    def of(self, num_codes: int) -> float:
        """Return the number for a layer of K codes."""
        return self.value * num_codes if self.of_codes else self.value


@frozen
class Assertion:
    """One thing that must hold.

    Attributes:
        metric: a name of `METRICS`.
        relation: ">=" or "<=".
        threshold: what it is compared with.
        layer: the VQ layer, or a pattern with * and ?; None is every layer, or the whole model.
        level: "error" fails the gate, "warn" only says so, "off" is not judged.
    """

    metric: str
    relation: Relation
    threshold: Threshold
    layer: str | None = None
    level: Level = "error"

    def is_about(self, layer: str) -> bool:
        """Return whether it concerns that VQ layer."""
        by_layer = METRICS[self.metric].by_layer
        return by_layer and (
            self.layer is None or layer == self.layer or fnmatch.fnmatchcase(layer, self.layer)
        )


_option = partial(option, group=GATE, commands=("gate",))


@frozen
class GateRules:
    """The rules of a gate, from flags, pyproject.toml and keywords.

    Attributes:
        assertions: what must hold; empty asks for no more than that no codebook has collapsed.
        max_drop: share of a baseline's figures that may be lost; None is `MAX_DROP`.
        aggregate: whether the median or the worst of several reports is compared with the thresholds;
            None compares each.
        inconclusive: what an interval that straddles its threshold counts as; None is neither.
    """

    assertions: tuple[Assertion, ...] = ()
    max_drop: float | None = _option(
        None,
        Kind(parse=lambda where, value: _number(where, value, share=True).value, metavar="F"),
        "Largest share that may be lost against the baseline.",
        shown=f"{MAX_DROP:.0%}",
    )
    aggregate: Aggregate | None = _option(
        None, choice("median", "worst"), "Judge all files (seeds) or batches together, by this."
    )
    inconclusive: Literal["pass", "fail"] | None = _option(
        None, choice("pass", "fail"), "The result where an interval straddles its threshold.", shown="exit 3"
    )


def gate_rules(values: Mapping[str, Any]) -> GateRules:
    """Return the rules that checked options make, by the field of each; without the limits that are off."""
    others = {name: values[name] for name in ("max_drop", "aggregate", "inconclusive") if name in values}
    limits = (limit for name, limit in values.items() if name in OPTIONS)
    told = (*limits, *values.get("require", ()))
    return GateRules(assertions=tuple(a for a in told if a.level != "off"), **others)


def parse_assertion(text: str, where: str) -> Assertion:
    """Return the assertion that `METRIC>=NUMBER[@LAYER]` states.

    Raises:
        UserError: if the text has another form, or there is no such metric.
    """
    found = _EXPRESSION.fullmatch(text)
    if not found:
        raise UserError(f"{where} {text}: not of the form METRIC>=NUMBER[@LAYER]", _FORM)
    name, relation, number, layer = found.groups()
    if name.lower() not in METRICS:
        raise UserError(f"{where} {text}: there is no metric {name}", suggestion(name.lower(), METRICS))
    metric = METRICS[name.lower()]
    if layer is not None and not metric.by_layer:
        raise UserError(f"{where} {text}: {name} is of the whole model", f"leave out @{layer}")
    return Assertion(
        metric=metric.name,
        relation=relation,  # type: ignore[arg-type]
        threshold=_number(f"{where} {text}", number, share=metric.share),
        layer=layer,
    )


def _limit(where: str, value: object, *, metric: Metric) -> Assertion:
    value, level = _level(where, value, "value")
    threshold = _number(where, value, share=metric.share)
    return Assertion(metric=metric.name, relation=metric.better, threshold=threshold, level=level)


def _requirements(where: str, value: object) -> tuple[Assertion, ...]:
    found = []
    for item in value if isinstance(value, list | tuple) else [value]:
        text, level = _level(where, item, "assert")
        if not isinstance(text, str):
            raise UserError(f"{where}: {text!r} is not an assertion", _FORM)
        found.append(replace(parse_assertion(text, where), level=level))
    return tuple(found)


def _level(where: str, value: object, key: str) -> tuple[object, Level]:
    """Return value and level of an entry; one that is not a table is an error where it fails."""
    if not isinstance(value, Mapping):
        return value, "error"
    example = f'such as {{ {key} = …, level = "warn" }}'
    unknown = [str(name) for name in value if name not in (key, "level")]
    if unknown:
        raise UserError(f"{where}.{unknown[0]}: no such setting", example)
    if key not in value:
        raise UserError(f"{where}: the table has no {key}", example)
    return value[key], one_of(f"{where}.level", value.get("level", "error"), LEVELS)


def _number(where: str, value: object, *, share: bool) -> Threshold:
    """Return a number of at least 0; a share is at most 1, or written in percent."""
    example = "write a share, such as 0.4 or 40%" if share else "write a number, such as 50, or 0.2K"
    unit = None
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value.strip())
        try:
            value, unit = float(found[1].replace(",", "")), found[2] if found else None  # type: ignore[index]
        except (TypeError, ValueError):
            raise UserError(f"{where}: {value!r} is not a number", example) from None
    if not is_finite(value):
        raise UserError(f"{where}: {value!r:.40} is not a finite number", example)
    number = value / 100 if unit == "%" else float(value)
    if unit == "%" and not share:
        meant = f"write {number:g}K for {value:g} % of the codes"
        raise UserError(f"{where}: {value:g}% is not a number of codes", meant)
    if number < 0 or (unit and (unit == "%") != share) or (share and number > 1):
        raise UserError(f"{where}: {value:g}{unit or ''} is out of range", example)
    if unit and not share and number > 1:
        what = f"{where}: {value:g}K is out of range: perplexity is at most K, which is the number of codes"
        raise UserError(what, f"write {1000 * number:g}, or a part of K, such as 0.2K")
    return Threshold(value=number, of_codes=unit is not None and not share)


_declare = partial(Option, home=GateRules, group=GATE, commands=("gate",))
GATE_OPTIONS = (
    *(
        _declare(
            name=f"gate.{name}",
            field=name,
            kind=Kind(parse=partial(_limit, metric=metric), metavar="F" if metric.share else "N|0.2K"),
            help=metric.help,
            flags=(f"--{name}",),
        )
        for name, metric in OPTIONS.items()
    ),
    _declare(
        name="gate.require",
        field="require",
        kind=Kind(parse=_requirements, metavar="EXPR", several=True),
        help='Any of these on one layer: "perplexity>=200@rvq.layers.0"; may be given several times.',
        flags=("--require",),
    ),
    *declared(GateRules, "gate"),
)
"""The options of a gate: a limit of each metric, and how the reports are judged."""
