"""What a gate can be told to hold: assertions on metrics, as they are written in options and settings."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vqdoctor.core.errors import UserError, suggestion

Relation = Literal[">=", "<="]
Level = Literal["off", "warn", "error"]
Aggregate = Literal["median", "worst"]

LEVELS: tuple[Level, ...] = ("off", "warn", "error")
AGGREGATES: tuple[Aggregate, ...] = ("median", "worst")
OPEN: tuple[Literal["pass", "fail"], ...] = ("pass", "fail")
MAX_DROP = 0.1
"""Share of a baseline's figure that may be lost where nobody says how much."""

_EXPRESSION = re.compile(r"\s*([a-z-]+)\s*(>=|<=)\s*([^@\s]+)\s*(?:@\s*(\S+)\s*)?", re.IGNORECASE)
_NUMBER = re.compile(
    r"([+-]?(?:\d{1,3}(?:,\d{3})+|\d[\d_]*)?\.?\d*(?:e[+-]?\d+)?)\s*(%|K)?",  # a comma parts thousands alone
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One thing that a gate can compare.

    Attributes:
        name: what expressions call it.
        better: ">=" where more is better, "<=" where less is.
        by_layer: whether every VQ layer has its own.
        share: whether it lies between 0 and 1.
        option: the option that sets its limit.
        title: what it is, in a few words.
        percent: whether people read it in percent.
    """

    name: str
    better: Relation
    by_layer: bool
    share: bool
    option: str
    title: str
    percent: bool = False


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="perplexity",
            better=">=",
            by_layer=True,
            share=False,
            option="min-perplexity",
            title="codes that would, used evenly, carry as much information",
        ),
        Metric(
            name="usage",
            better=">=",
            by_layer=True,
            share=True,
            option="min-usage",
            title="share of the codes that are chosen at all",
            percent=True,
        ),
        Metric(
            name="dead",
            better="<=",
            by_layer=True,
            share=True,
            option="max-dead",
            title="share of the codes chosen less than a tenth as often as on even usage",
            percent=True,
        ),
        Metric(
            name="ece",
            better="<=",
            by_layer=False,
            share=True,
            option="max-ece",
            title="expected calibration error",
        ),
        Metric(
            name="accuracy",
            better=">=",
            by_layer=False,
            share=True,
            option="min-accuracy",
            title="share of the samples that are classified rightly",
            percent=True,
        ),
    )
}
OPTIONS: Mapping[str, Metric] = {metric.option: metric for metric in METRICS.values()}


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A number to compare with: as it is, or as a multiple of the layer's number of codes, K."""

    value: float
    of_codes: bool = False

    def of(self, num_codes: int) -> float:
        """Return the number for a layer of so many codes."""
        return self.value * num_codes if self.of_codes else self.value


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class GateRules:
    """What a gate was told, wherever it was told it.

    Attributes:
        assertions: what must hold; empty asks for no more than that no codebook has collapsed.
        max_drop: share of a baseline's figures that may be lost; None is `MAX_DROP`.
        aggregate: whether the median or the worst of several reports is held against the thresholds;
            None holds each.
        inconclusive: what an interval that straddles its threshold counts as; None is neither.
    """

    assertions: tuple[Assertion, ...] = ()
    max_drop: float | None = None
    aggregate: Aggregate | None = None
    inconclusive: Literal["pass", "fail"] | None = None


@dataclass(frozen=True, kw_only=True)
class GateTable:
    """Rules as one place tells them, by name, so that a later place can override an earlier one."""

    limits: Mapping[str, Assertion] = field(default_factory=dict)
    require: tuple[Assertion, ...] = ()
    others: Mapping[str, Any] = field(default_factory=dict)

    def under(self, above: GateTable) -> GateTable:
        """Return these rules with those of `above`, which win where both name one; requirements add up."""
        return GateTable(
            limits={**self.limits, **above.limits},
            require=(*self.require, *above.require),
            others={**self.others, **above.others},
        )

    def rules(self) -> GateRules:
        """Return the rules, without what is switched off."""
        told = (*self.limits.values(), *self.require)
        return GateRules(assertions=tuple(a for a in told if a.level != "off"), **self.others)


def parse_gate(table: Mapping[str, object], place: str) -> GateTable:
    """Return the rules of a table: of `[tool.vqdoctor.gate]`, or the options of a command line.

    Args:
        table: values by name ("min-perplexity").
        place: what stands before the names in messages: "--", or the file and table.

    Raises:
        UserError: if a name is unknown or a value cannot be.
    """
    limits: dict[str, Assertion] = {}
    others: dict[str, Any] = {}
    require: tuple[Assertion, ...] = ()
    for name, value in table.items():
        where = place + name
        if name in OPTIONS:
            limits[name] = _limit(where, OPTIONS[name], value)
        elif name == "require":
            items = value if isinstance(value, list | tuple) else [value]
            require += tuple(_requirement(where, item) for item in items)
        elif name == "max-drop":
            others["max_drop"] = _number(where, value, share=True).value
        elif name == "aggregate":
            others["aggregate"] = _one_of(where, value, AGGREGATES)
        elif name == "inconclusive":
            others["inconclusive"] = _one_of(where, value, OPEN)
        else:
            known = [*OPTIONS, "require", "max-drop", "aggregate", "inconclusive"]
            raise UserError(f"{where}: no such setting", suggestion(name, known))
    return GateTable(limits=limits, require=require, others=others)


def parse_assertion(text: str, where: str) -> Assertion:
    """Return the assertion that `METRIC>=NUMBER[@LAYER]` states.

    Raises:
        UserError: if the text has another form, or there is no such metric.
    """
    form = 'such as "perplexity>=200@rvq.layers.0"'
    found = _EXPRESSION.fullmatch(text)
    if not found:
        raise UserError(f"{where} {text}: not of the form METRIC>=NUMBER[@LAYER]", form)
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


def _limit(where: str, metric: Metric, value: object) -> Assertion:
    value, level = _level(where, value, "value")
    threshold = _number(where, value, share=metric.share)
    return Assertion(metric=metric.name, relation=metric.better, threshold=threshold, level=level)


def _requirement(where: str, value: object) -> Assertion:
    value, level = _level(where, value, "assert")
    if not isinstance(value, str):
        raise UserError(f"{where}: {value!r} is no assertion", 'such as "perplexity>=200@rvq.layers.0"')
    found = parse_assertion(value, where)
    return Assertion(**{**vars(found), "level": level})


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
    return value[key], _one_of(f"{where}.level", value.get("level", "error"), LEVELS)


def _number(where: str, value: object, *, share: bool) -> Threshold:
    """Return a number of at least 0; a share is at most 1, or written in percent."""
    example = "write a share, such as 0.4 or 40%" if share else "write a number, such as 50, or 0.2K"
    unit = None
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value.strip())
        try:
            value, unit = float(found[1].replace(",", "")), found[2] if found else None  # type: ignore[index]
        except (TypeError, ValueError):
            raise UserError(f"{where}: {value!r} is no number", example) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where}: {value!r} is no finite number", example)
    number = value / 100 if unit == "%" else float(value)
    if number < 0 or (unit and (unit == "%") != share) or (share and number > 1):
        raise UserError(f"{where}: {value:g}{unit or ''} cannot be", example)
    if unit and not share and number > 1:
        what = f"{where}: {value:g}K is more than perplexity can be, for K is the layer's number of codes"
        raise UserError(what, f"write {1000 * number:g}, or a part of K, such as 0.2K")
    return Threshold(value=number, of_codes=unit is not None and not share)


def _one_of(where: str, value: object, known: tuple[Any, ...]) -> Any:
    if value not in known:
        raise UserError(f"{where}: {value!r} is none of {', '.join(known)}")
    return value
