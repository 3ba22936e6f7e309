"""What a retraining did, in words that the formats share."""

from __future__ import annotations

from dataclasses import dataclass

from vqdoctor.core.report import Report
from vqdoctor.core.retraining import Arm, Figures, Goal, Retraining
from vqdoctor.render._text import number


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One figure before and after, beside its goal.

    Attributes:
        name: what it is.
        before: before the retraining; "" where it was not measured.
        after: after it, likewise.
        goal: the goal; "" where there is none.
        met: whether it is met; None where there is none.
    """

    name: str
    before: str
    after: str
    goal: str = ""
    met: bool | None = None


def outcome(retraining: Retraining) -> str:
    """Return the one word for how it ended."""
    if retraining.interrupted:
        return "interrupted"
    return "cured" if retraining.cured else "not cured"


def headline(retraining: Retraining) -> str:
    """Say in one sentence how it ended."""
    epochs = len(retraining.epochs)
    spent = f"{epochs} epoch{'' if epochs == 1 else 's'} in {_duration(retraining.seconds)}"
    missed = [goal for goal in retraining.goals if not goal.met]
    if retraining.interrupted:
        return f"ended after {spent}; --resume goes on"
    if not retraining.goals:
        return f"{spent}, but nothing could be compared with a goal"
    if missed:
        next_ = "" if retraining.trial else "; --trial measures what helps here"
        return f"{spent}; missed: {', '.join(_goal(goal) for goal in missed)}{next_}"
    return f"all {len(retraining.goals)} goals met after {spent}"


def compared(retraining: Retraining) -> tuple[Compared, ...]:
    """Return every figure before and after, those of the layers first."""
    before, after = retraining.before, retraining.after
    goals = {(goal.name, goal.layer): goal for goal in retraining.goals}
    rows = []
    names = dict.fromkeys(name for figures in (before, after) if figures for name in figures.layers)
    for name in names:
        of = f" of {name}" if len(names) > 1 else ""
        was, is_ = (f.layers.get(name) if f else None for f in (before, after))
        rows.append(
            _row(
                f"perplexity{of}",
                _codes(was.perplexity, was.num_codes) if was else "",
                _codes(is_.perplexity, is_.num_codes) if is_ else "",
                goals.get(("perplexity", name)),
            )
        )
        rows.append(
            _row(
                f"active codes{of}",
                _codes(was.active, was.num_codes) if was else "",
                _codes(is_.active, is_.num_codes) if is_ else "",
                goals.get(("usage", name)),
            )
        )
    for name, field in (("accuracy", "accuracy"), ("calibration error", "ece"), ("task loss", "loss")):
        rows.append(_row(name, _share(before, field), _share(after, field), goals.get((field, None))))
    return tuple(row for row in rows if row.before or row.after)


def beside(retraining: Retraining) -> str:
    """Say where the figures are from, and what the same model does without VQ."""
    source = retraining.after or retraining.before
    samples = f"{source.samples:,} samples of the {retraining.split} split" if source else "no data"
    without = _share(retraining.without_vq, "accuracy")
    more = f"; the same model without VQ, trained as long: accuracy {without}" if without else ""
    return f"measured on {samples}{more}"


def arms(retraining: Retraining) -> tuple[tuple[str, str], ...]:
    """Return what was tried, the winner first, each with what it came to."""
    return tuple((f"{arm.name}{' (chosen)' if arm.chosen else ''}", _arm(arm)) for arm in retraining.trial)


def repairs(report: Report) -> tuple[tuple[str, str, str], ...]:
    """Return (status, remedy, reason) of every repair."""
    return tuple((repair.status, repair.remedy, repair.reason) for repair in report.repairs)


def _arm(arm: Arm) -> str:
    figures = arm.figures
    parts = [
        f"perplexity {number(layer.perplexity)} of {layer.num_codes}" for layer in figures.layers.values()
    ]
    parts = parts if len(parts) <= 2 else [parts[0], f"… {parts[-1]}"]
    known = figures.accuracy is not None
    parts.append(f"accuracy {figures.accuracy:.3f}" if known else f"task loss {figures.loss:.4g}")
    return f"{', '.join(parts)} after {arm.epochs} epochs"


def _row(name: str, before: str, after: str, goal: Goal | None) -> Compared:
    if goal is None:
        return Compared(name=name, before=before, after=after)
    return Compared(name=name, before=before, after=after, goal=_limit(goal), met=goal.met)


def _limit(goal: Goal) -> str:
    if goal.name == "ece":
        return f"at most {goal.limit:.3f}"
    if goal.name == "usage":
        return f"at least {goal.limit:.0%} of the expected"
    return f"at least {number(goal.limit) if goal.name == 'perplexity' else f'{goal.limit:.3f}'}"


def _goal(goal: Goal) -> str:
    where = f" of {goal.layer}" if goal.layer else ""
    value = number(goal.value) if goal.name == "perplexity" else f"{goal.value:.3f}"
    return f"{goal.name}{where} {value}, wanted {_limit(goal)}"


def _codes(value: float, codes: int) -> str:
    return f"{number(value)} of {codes}"


def _share(figures: Figures | None, name: str) -> str:
    value = None if figures is None else getattr(figures, name)
    return "" if value is None else f"{value:.4f}" if name == "loss" else f"{value:.3f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
