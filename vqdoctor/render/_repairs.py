"""What a fix did to a file, in words that the formats share."""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.report import DRY_RUN, Change, Repair, Report
from vqdoctor.render._text import number, percent

NAMES = {
    "dead": "dead codes",
    "used": "codes used",
    "active": "codes active",
    "perplexity": "perplexity",
    "copies": "copies of other codes",
    "non_finite": "codes with NaN or infinity",
    "off_their_sums": "codes off their EMA sums",
    "accuracy": "accuracy",
    "ece": "calibration error",
}


def headline(report: Report) -> str:
    """Say in one line what became of the remedies."""
    applied = [repair for repair in report.repairs if repair.status == "applied"]
    if not report.repairs:
        return "no remedy is asked for"
    if not applied:
        return "no remedy was applied"
    names = ", ".join(dict.fromkeys(repair.remedy for repair in applied))
    return f"would apply {names}" if DRY_RUN in report.notes else f"applied {names}"


def status(report: Report, repair: Repair) -> str:
    """Return the word for what became of a remedy."""
    return "to apply" if repair.status == "applied" and DRY_RUN in report.notes else repair.status


def title(repair: Repair) -> str:
    """Return why a remedy did what it did, and where, as it stands behind its name."""
    where = f"on {repair.layer}" if repair.layer else ""
    return "; ".join(part for part in (where, repair.reason) if part)


def figures(repair: Repair) -> Iterator[tuple[str, str, str]]:
    """Yield (name, before, after) of what was measured, a question mark where it was not."""
    for name in dict.fromkeys((*NAMES, *repair.before, *repair.after)):
        if name in repair.before or name in repair.after:
            before, after = (_value(name, side.get(name)) for side in (repair.before, repair.after))
            yield NAMES.get(name, name.replace("_", " ")), before, after


def change(item: Change) -> tuple[str, str, str]:
    """Return (key, what is written, figures before and after) of one tensor."""
    told = ", ".join(f"{name} {number(item.before[name])} → {_after(item, name)}" for name in item.before)
    return item.key, item.what, told


def _after(item: Change, name: str) -> str:
    return number(item.after[name]) if name in item.after else "?"


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "?"
    return percent(value) if name == "accuracy" else f"{value:.3f}" if name == "ece" else number(value)


def shown(report: Report) -> bool:
    """Whether there are repairs to show here; a retraining shows its own."""
    return bool(report.repairs) and report.retraining is None
