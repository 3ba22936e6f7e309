"""The evidence that is missing and the checks that could not judge, by reason; and the same in two lines."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vqdoctor.core.report import Report
from vqdoctor.render import _phrases as phrases
from vqdoctor.render._document import Item, Items, Section, items_section
from vqdoctor.render._text import count, listing


@dataclass(kw_only=True)
class _Gap:
    """One reason, and all that it concerns; dicts serve as ordered sets.

    Attributes:
        hints: flags, or what to save next time.
        kinds: kinds of evidence that are missing for it.
        codes: checks that were skipped for it.
        skipped: how often a check was skipped for it, over all layers.
    """

    hints: dict[str, None] = field(default_factory=dict)
    kinds: dict[str, None] = field(default_factory=dict)
    codes: dict[str, None] = field(default_factory=dict)
    skipped: int = 0


def section(report: Report, names: Mapping[str, str], *, verbose: bool) -> Section | None:
    """Return the gaps, first the gaps that the user can fill; None where there are none."""
    known = {(e.kind, e.layer) for e in report.evidence}
    by_reason: dict[str, _Gap] = {}
    for missing in report.unavailable:
        if (missing.kind, missing.layer) not in known:
            gap = by_reason.setdefault(missing.reason, _Gap())
            gap.kinds[missing.kind.replace("-", " ")] = None
            gap.hints.update({missing.hint: None} if missing.hint else {})
    for outcome in report.outcomes:
        if outcome.status == "skipped":
            gap = by_reason.setdefault(outcome.reason or "no reason given", _Gap())
            gap.codes[outcome.code] = None
            gap.skipped += 1
    if not by_reason:
        return None
    gaps = sorted(by_reason.items(), key=lambda item: not item[1].hints)
    whole = []
    for reason, gap in gaps:
        checks = ", ".join(phrases.named(code, names) for code in gap.codes)
        told = [", ".join(gap.kinds), f"check{'s' if len(gap.codes) > 1 else ''} {checks}" if checks else ""]
        text = f"{_with_names(reason, names)}: {'; '.join(filter(None, told))}"
        whole.append(Item(text=text, commands=tuple(gap.hints)))
    short = Items(items=(Item(text=_why(report, gaps, names)), _most(gaps)))
    return replace(items_section("Not examined", whole), short=(short,), folded=not verbose)


def _why(report: Report, gaps: Sequence[tuple[str, _Gap]], names: Mapping[str, str]) -> str:
    """Return how many checks could not judge, and the reason of most of them."""
    skipping = [(reason, gap) for reason, gap in gaps if gap.skipped]
    if not skipping:
        return f"missing evidence: {listing(list(dict.fromkeys(k for _, gap in gaps for k in gap.kinds)))}"
    skipped = sum(gap.skipped for _, gap in skipping)
    reason, most = max(skipping, key=lambda item: item[1].skipped)
    why = f": {_with_names(reason, names)}"
    if len(skipping) > 1:
        others = f" ({most.skipped}), other reasons ({skipped - most.skipped})"
        why = f"{why}{others}" if most.skipped > 1 else ", each for a reason of its own"
    return f"{skipped} of {count(len(report.outcomes), 'check')} could not judge{why}"


def _most(gaps: Sequence[tuple[str, _Gap]]) -> Item:
    """Return the flag that serves the most checks, and the command that lists all gaps."""
    listed = "vqdoctor inspect -v lists all"
    hinting = [gap for _, gap in gaps if gap.hints]
    if not hinting:
        return Item(name="vqdoctor inspect -v", text="lists them")
    gap = max(hinting, key=lambda gap: (gap.skipped, len(gap.kinds)))
    serves = (
        f"lets up to {gap.skipped} of them judge"
        if gap.skipped
        else f"brings evidence: {listing([*gap.kinds], 3)}"
    )
    return Item(name=next(iter(gap.hints)), text=f"{serves}; {listed}")


def _with_names(text: str, names: Mapping[str, str]) -> str:
    """Put the name of a check beside each code that stands without it."""

    def name(match: re.Match[str]) -> str:
        told = text[match.end() :].lstrip(" (").startswith(names.get(match[0], ""))
        return match[0] if told else phrases.named(match[0], names)

    return re.sub(r"\bVQ\d{3}\b", name, text)
