"""The findings as blocks: causes first, each with its symptoms; equal ones of several layers are one."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from vqdoctor.core.experiments import MOST_IN_ALL
from vqdoctor.core.finding import Finding, Measurement
from vqdoctor.core.levels import Severity, Stage
from vqdoctor.core.report import Report
from vqdoctor.core.undecided import CAUSES_IN_USE
from vqdoctor.render import _phrases as phrases
from vqdoctor.render._document import Block, Item, Items, Measured, Section
from vqdoctor.render._text import count, layers_in_short, number

MOST_NAMED = 8
"""Checks that are ruled out which are told with their names: more make a wall of text."""
CAUSE_STAGES = (Stage.GRADIENT, Stage.LOSS, Stage.INITIALISATION, Stage.SCHEDULE)
"""The stages whose checks look for causes; the later ones measure the effects."""


def blocks(report: Report) -> tuple[Block, ...]:
    """Return the roots in rank order, each with its symptoms, numbered from top to bottom."""
    numbers = itertools.count(1)
    code = {step.remedy: step.code for step in report.plan}
    planned = frozenset(code)
    found = []
    for members in _groups(report.roots()):
        root = _block(members, next(numbers))
        is_note = root.severity <= Severity.NOTE  # a note asks for no step of the plan
        fitting = [name for name in members[0].remedies if is_note or not planned or name in planned]
        if fitting:
            shown = "" if is_note else code.pop(fitting[0], "")
            root = replace(root, remedy=fitting[0], remedy_code=shown)
        symptoms, told = [], {root.decide_with}
        for group in _groups(finding for member in members for finding in report.symptoms(member)):
            symptom = _block(group, next(numbers))
            symptoms.append(replace(symptom, decide_with="") if symptom.decide_with in told else symptom)
            told.add(symptom.decide_with)
        found.append(replace(root, symptoms=tuple(symptoms)))
    return tuple(found)


def causes(found: Iterable[Block]) -> tuple[Block, ...]:
    """Return the roots that are more than a note."""
    return tuple(block for block in found if block.severity > Severity.NOTE)


def unexplained(found: Iterable[Block]) -> tuple[Block, ...]:
    """Return the roots at the head that only measure poor usage; their cause was not found."""
    return tuple(itertools.takewhile(_measures, causes(found)))


def _measures(root: Block | Finding) -> bool:
    """Whether a root only measures poor usage, whose cause is another."""
    return root.stage is Stage.USAGE and root.code not in CAUSES_IN_USE


def sections(report: Report, found: Sequence[Block], names: Mapping[str, str]) -> tuple[Section, ...]:
    """Return the findings under headings that promise a cause only if one was found."""
    open_ = unexplained(found)
    known = causes(found)[len(open_) :]
    told = []
    if open_:
        decide = open_[0].decide_with
        shown = (replace(b, decide_with="") if b.decide_with == decide else b for b in open_)
        items = Items(items=(*_ruled_out(report, names), deciding(open_[0])))
        told.append(Section(title="Cause not found; the measurements", nodes=(*shown, items)))
    if known:
        title = "Also wrong, causes first" if open_ else "What is wrong, causes first"
        told.append(Section(title=title, nodes=known))
    return tuple(told)


def notes(found: Iterable[Block]) -> tuple[Section, ...]:
    """Return the roots that are notes, under a heading of their own, if there are any."""
    told = tuple(block for block in found if block.severity <= Severity.NOTE)
    return (Section(title="Notes", nodes=told),) if told else ()


def deciding(root: Block) -> Item:
    """Return the one flag or command that brings the cause of an unexplained root to light."""
    if root.decide_with:
        trains = (
            ", trains copies of the model, each with one cause taken away: only what separates the suspects "
            f"that are left, and at most {MOST_IN_ALL} training steps in all"
        )
        text = f"added to the same command{trains if root.decide_with.endswith('--decide') else ''}"
        return Item(label="to decide", name=root.decide_with, text=text)
    return Item(label="to decide", name=f"vqdoctor explain {root.code}", text="lists the possible causes")


def _ruled_out(report: Report, names: Mapping[str, str]) -> list[Item]:
    """Return the checks for causes that passed on every layer with an unexplained finding, and the rest."""
    layers = {f.layer for f in report.roots() if _measures(f) and f.severity > Severity.NOTE}
    status = {(outcome.code, outcome.layer): outcome.status for outcome in report.outcomes}
    digits = {str(int(stage)) for stage in CAUSE_STAGES}
    codes = dict.fromkeys(outcome.code for outcome in report.outcomes if outcome.code[2:3] in digits)
    passed, open_ = [], 0
    for code in codes:
        # A check of the whole model counts for a layer on which it has no outcome of its own.
        told = {status.get((code, layer)) or status.get((code, None)) for layer in layers}
        if told == {"passed"}:
            passed.append(code)
        elif "found" not in told:
            open_ += 1
    named = len(passed) <= MOST_NAMED
    listed = ", ".join(phrases.named(code, names) if named else code for code in passed)
    text = listed if named else f"{listed}; vqdoctor checks names them"
    items = [Item(label="ruled out", text=text or "no cause yet")]
    if open_:
        items.append(Item(label="still open", text=f"{count(open_, 'check')} for causes could not judge"))
    return items


def _groups(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Put findings together that differ only in their layer and their numbers."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    seen: Counter[tuple[object, ...]] = Counter()
    for f in findings:
        alike = (f.code, f.severity, f.confidence, f.remedies, f.layer is None)
        # Two findings of one check on one layer are two problems.
        seen[alike, f.layer] += 1
        groups.setdefault((alike, seen[alike, f.layer]), []).append(f)
    return list(groups.values())


def _block(members: Sequence[Finding], number_: int) -> Block:
    def distance(finding: Finding) -> float:
        """Return how far the decisive number lies from its limit, relative to it; 0 without a limit."""
        limited = ((m.value, m.limit) for m in finding.measurements if m.limit is not None)
        value, limit = next(limited, (0.0, 0.0))
        return abs(value - limit) / (abs(limit) or 1.0)

    worst = max(members, key=distance)
    same = all(member.message == worst.message for member in members)
    return Block(
        number=number_,
        severity=worst.severity,
        stage=worst.stage,
        tag=phrases.tag(worst),
        code=worst.code,
        name=worst.name,
        layers=layers_in_short([member.layer for member in members if member.layer is not None]),
        message=worst.message if same else f"Worst on {worst.layer}: {worst.message}",
        measurements=tuple(_measured(m, members) for m in worst.measurements),
        decide_with=next((member.decide_with for member in members if member.decide_with), ""),
    )


def _measured(measurement: Measurement, members: Sequence[Finding]) -> Measured:
    values = [m.value for member in members for m in member.measurements if m.name == measurement.name]
    name, value, limit = phrases.measured(measurement)
    low, high = number(min(values)), number(max(values))
    spread = f"{low}–{high} on {count(len(values), 'layer')}" if low != high else ""
    return Measured(name=name, value=value, limit=limit, range=spread)
