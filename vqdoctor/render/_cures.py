"""The results of a fix or a retraining, as parts of the document."""

from collections.abc import Iterator, Mapping
from typing import Literal

from vqdoctor.core.levels import Severity
from vqdoctor.core.report import DRY_RUN, NOT_WRITTEN, Repair, Report
from vqdoctor.core.retraining import Arm, Ended, Figures, Goal, Price, Retraining
from vqdoctor.core.source import SourcePatch, SourceStep
from vqdoctor.render._document import Compared, Comparison, Headline, Item, Section, Tone, items_section
from vqdoctor.render._text import count, number, percent

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
"""The figures of a repair, in the order in which they are shown."""

Share = Literal["accuracy", "ece", "loss"]
ENDED: Mapping[Ended, str] = {
    "goals": "the goals held on the stop split",
    "plateau": "the task loss on the stop split fell no further",
    "time": "the minutes were over (more of them: --minutes M)",
    "epochs": "all epochs were done",
    "budget": "all epochs were done, while the task loss still fell (longer: --epochs N or --steps N)",
    "source": "the cause is in your source",
    "nothing": "no finding asks for a training",
    "unlearned": "the same model learns nothing without VQ either",
}
"""Why a training ended, in words."""
SHARES: Mapping[str, Share] = {"accuracy": "accuracy", "calibration error": "ece", "task loss": "loss"}
"""The figures of the whole model before and after a retraining."""


def headline(report: Report) -> Headline | None:
    """Return how a retraining ended, or which remedies a fix applied; None for an inspection."""
    if report.retraining:
        done = report.retraining
        word = "INTERRUPTED" if done.interrupted else "CURED" if done.cured else "NOT CURED"
        at_risk = report.verdict in ("collapsed", "at-risk")
        left = done.cured and at_risk and not is_left_in_source(report)
        word = "CURE NOT PROVEN" if _is_unproven(done) else word
        word = f"{word}, BUT {report.verdict.upper().replace('-', ' ')}" if left else word
        word = "NOTHING TO CURE" if done.needless else word
        standing = _standing(report) if done.ended == "nothing" else ""
        word = f"{word} BY TRAINING" if standing or done.ended == "source" else word
        return Headline(
            word=word, tone="good" if done.cured and not left else "warn", text=standing or _ended(done)
        )
    if report.source is not None:
        return _patched(report.source)
    if not (report.repairs or {DRY_RUN, NOT_WRITTEN} & {*report.notes}):
        return None
    return Headline(word="FIX", tone="plain", text=_fixed(report))


def _standing(report: Report) -> str:
    """Return the causes that stand and ask for steps outside of a training; "" for a model without causes."""
    roots = [f for f in report.roots() if f.severity > Severity.NOTE]
    if not roots:
        return ""
    codes = tuple(dict.fromkeys(f.code for f in roots))
    steps = dict.fromkeys(s.remedy for code in codes for s in report.plan if code in s.codes)
    todo = f": {', '.join(steps)}" if steps else ""
    return f"no retraining reaches {', '.join(codes)}; the plan is yours to do{todo}"


def _patched(patch: SourcePatch) -> Headline:
    """Return how many steps of the plan are in a patch of the source, and where it is."""
    proven = sum(step.status == "proven" for step in patch.steps)
    if not proven:
        return Headline(word="SOURCE", tone="warn", text=f"no change of {patch.path} could be proven")
    where = f"written to {patch.path}" if patch.written else "nothing is written; --write does it"
    return Headline(word="SOURCE", tone="good", text=f"{count(proven, 'proven change')}, {where}")


def _fixed(report: Report) -> str:
    """Return which remedies a fix applied; for none, whether something else would."""
    applied = dict.fromkeys(repair.remedy for repair in report.repairs if repair.status == "applied")
    if applied:
        return f"{'would apply' if DRY_RUN in report.notes else 'applied'} {', '.join(applied)}"
    if not report.repairs:
        return "there is nothing to repair in this file"
    ways = ("--unsafe-fixes", "--retrain")
    allowed = (way for way in ways if any(way in repair.reason for repair in report.repairs))
    way = next(allowed, "")
    return "nothing in this file can be repaired as it is" + (
        f"; vqdoctor fix {way} does more" if way else ""
    )


def _ended(done: Retraining) -> str:
    if done.ended in ("source", "nothing"):
        if done.needless and done.ended == "nothing":
            return f"all {len(done.goals)} goals held before; {ENDED[done.ended]}"
        if done.needless:
            codes = ", ".join(dict.fromkeys(code for change in done.source for code in change.codes))
            is_labelled = done.before is not None and done.before.accuracy is not None
            held = "the goals held before" if is_labelled else "its codes are in use"
            return f"{held}, and no retraining reaches {codes}: change your source first"
        return f"nothing was trained, since {ENDED[done.ended]}, where no training reaches it"
    if done.ended == "unlearned":
        return f"{ENDED[done.ended]}{_unlearned(done.without_vq)} trains with VQ all the same"
    minutes, seconds = divmod(round(done.seconds), 60)
    duration = f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
    steps = f" of {count(done.plan.steps, 'step')}" if done.plan.steps else ""
    spent = f"{count(len(done.epochs), 'epoch')}{steps} in {duration}"
    missed = []
    for goal in done.goals:
        if not goal.met:
            where = f" of {goal.layer}" if goal.layer else ""
            value = number(goal.value) if goal.name == "perplexity" else f"{goal.value:.3f}"
            value, name = (f"{goal.value:.4g}", "task loss") if goal.name == "loss" else (value, goal.name)
            missed.append(f"{name}{where} {value}, wanted {_limit(goal)}")
    if done.interrupted:
        return f"ended after {spent}{_worse(done)}; --resume goes on"
    if done.worse:
        return f"{spent}{_worse(done)}{'' if done.written else ': --resume --keep-worse writes it'}"
    if _is_unproven(done):
        return f"all {len(done.goals)} goals met after {spent}, but {_too_short(done)}"
    if not done.goals:
        return f"{spent}, but no figure has a goal to be compared with"
    if missed:
        next_ = "" if done.trial else "; --trial measures which remedies help here"
        next_ = "; the run was too short: give more --epochs or --steps" if done.too_short else next_
        return f"{spent}; missed: {', '.join(missed)}{next_}"
    return f"all {len(done.goals)} goals met after {spent}"


def _unlearned(found: Figures | None) -> str:
    """Return the result of a model without VQ, where to look, and the option that trains all the same."""
    if found is None or found.accuracy is None:
        loss = "" if found is None else f" (task loss {found.loss:.4g}, with one mean vector for z_e too)"
        places = "the encoder, the data, the loss or the optimizer"
        return f"{loss}, and no file is written: look for the cause in {places}; --max-loss F"
    figures = f"accuracy {found.accuracy:.3f}, a guess {found.chance or 0.0:.3f}"
    places = "the labels, the data, the loss or the optimizer"
    return f" ({figures}), and no file is written: look for the cause in {places}; --min-accuracy F"


def _is_unproven(done: Retraining) -> bool:
    """Whether all goals are met, and only the one that the model without VQ would set is unknown."""
    return done.too_short and done.goals_met and not (done.worse or done.interrupted)


def _too_short(done: Retraining) -> str:
    """Return the figures that make a cure unknown, and the option that gives it a measure."""
    name, word, option = _task_figure(done)
    without, before = (_share(side, name) for side in (done.without_vq, done.before))
    figures = f"{word} {without} after as long, {before} of the checkpoint"
    return (
        f"too short to tell a cure, as the same model without VQ is still learning ({figures}); "
        f"train longer, or set the goal: {option} F"
    )


def _task_figure(done: Retraining) -> tuple[Share, str, str]:
    """Return the figure of the task: its name, its word and the option that sets its goal."""
    if done.before is None or done.before.accuracy is None:
        return "loss", "task loss", "--max-loss"
    return "accuracy", "accuracy", "--min-accuracy"


def _worse(done: Retraining) -> str:
    """Return by how much a retrained model does its task worse, and whether it is written; "" else."""
    if not done.worse:
        return ""
    name, word, _ = _task_figure(done)
    before, after = (_share(side, name) for side in (done.before, done.after))
    written = "but was written, as asked" if done.written else "and was not written"
    return f"; it does its task worse than before ({word} {before} → {after}) {written}"


def sections(report: Report) -> Iterator[Section]:
    """Yield the figures before and after, the ways that were tried, and the fate of each remedy."""
    done = report.retraining
    if done:
        comparison = Comparison(rows=_compared(done), source=_source(done))
        yield Section(title="Before and after", nodes=(comparison,))
    if done and done.trial:
        yield items_section("Trial, best first", map(_arm, done.trial))
    if report.source is not None:
        whole = Item(label="patch", text=report.source.path, code=report.source.diff)
        steps = map(_source_step, report.source.steps)
        yield items_section("Your source", [*steps, *([whole] if report.source.diff else [])])
    yield items_section("Remedies", (_repair(report, repair) for repair in report.repairs))


def _source_step(step: SourceStep) -> Item:
    tone: Tone = "good" if step.status == "proven" else "open" if step.status == "unproven" else "faint"
    tried = f" ({count(step.tried, 'way')} tried)" if step.status == "unproven" else ""
    told = f"{step.what}: {step.reason}{tried}" if step.what else step.reason
    return Item(label=step.status.replace("-", " "), tone=tone, name=step.remedy, text=told, code=step.diff)


def is_left_in_source(report: Report) -> bool:
    """Whether a cured model's report has only those findings left that its source brings about."""
    done = report.retraining
    if done is None or not done.cured:
        return False
    causes = {f.code for f in report.roots() if f.severity > Severity.NOTE}
    return bool(causes) and causes <= {*in_source(report)}


def in_source(report: Report) -> tuple[str, ...]:
    """Return the codes whose cause a retraining left in the user's source."""
    done = report.retraining
    if done is None or not done.written:
        return ()
    return tuple(dict.fromkeys(code for change in done.source for code in change.codes))


def has_plan(report: Report) -> bool:
    """Whether the steps of the plan are still to try: they help a model only where it learns without VQ."""
    unlearned = report.retraining is not None and report.retraining.ended == "unlearned"
    return not (unlearned or is_left_in_source(report))


def left(report: Report) -> Section | None:
    """Return the changes that the user's source still needs after a retraining; None if it needs none."""
    source = report.retraining.source if report.retraining else ()
    items = tuple(Item(text=f"{change.why.removesuffix('.')}:", code=change.code) for change in source)
    findings = {finding.code for finding in report.findings}
    if found := [code for code in in_source(report) if code in findings]:
        text = f"until then inspect and gate with your code still find {', '.join(found)}"
        items = (*items, Item(text=text))
    untrained = report.retraining is not None and report.retraining.ended == "source"
    title = "Change your source first" if untrained else "The file is retrained; your source is as it was"
    return items_section(title, items) if items else None


def _repair(report: Report, repair: Repair) -> Item:
    where = f"on {repair.layer}" if repair.layer else ""
    applied = repair.status == "applied"
    figures = []
    if report.retraining is None:  # a retraining has figures of the whole only, and they stand above
        for name in dict.fromkeys((*NAMES, *repair.before, *repair.after)):
            if name in repair.before or name in repair.after:
                form = {"accuracy": percent, "ece": "{:.3f}".format}.get(name, number)
                before, after = (
                    "?" if value is None else form(value)
                    for value in (repair.before.get(name), repair.after.get(name))
                )
                label = NAMES.get(name, name.replace("_", " "))
                figures.append(Item(label=label, text=f"{before} → {after}"))
    changes = []
    for change in repair.changes:
        new = {name: number(value) for name, value in change.after.items()}
        told = ", ".join(f"{name} {number(v)} → {new.get(name, '?')}" for name, v in change.before.items())
        changes.append(Item(name=change.key, text=f"{change.what}; {told}" if told else change.what))
    return Item(
        label="to apply" if applied and DRY_RUN in report.notes else repair.status,
        tone="good" if applied else "faint",
        name=repair.remedy,
        text="; ".join(part for part in (where, repair.reason) if part),
        more=(*figures, *changes),
    )


def _compared(done: Retraining) -> tuple[Compared, ...]:
    """Return every figure before and after, the layers' figures first."""
    goals = {(goal.name, goal.layer): goal for goal in done.goals}
    sides = (done.before, done.after)
    layers = dict.fromkeys(name for side in sides if side for name in side.layers)
    rows = []
    for layer in layers:
        of = f" of {layer}" if len(layers) > 1 else ""
        figures = [side.layers.get(layer) if side else None for side in sides]
        for title, name, goal in (
            ("perplexity", "perplexity", "perplexity"),
            ("without the one that stands out", "rest_perplexity", "perplexity"),
            ("active codes", "active", "usage"),
        ):
            values = [None if f is None else getattr(f, name) for f in figures]
            before, after = (
                "" if f is None or value is None else f"{number(value)} of {number(f.num_codes)}"
                for f, value in zip(figures, values, strict=True)
            )
            found = goals.get((goal, layer))
            is_goal = goal == "usage" or (found is not None and found.value in values)
            rows.append(_row(f"{title}{of}", before, after, found if is_goal else None))
    for title, name in SHARES.items():
        before, after = (_share(side, name) for side in sides)
        rows.append(_row(title, before, after, goals.get((name, None))))
    return tuple(row for row in rows if row.before or row.after)


def _row(name: str, before: str, after: str, goal: Goal | None) -> Compared:
    limit, met = (_limit(goal), goal.met) if goal else ("", None)
    return Compared(name=name, before=before, after=after, goal=limit, met=met)


def _source(done: Retraining) -> str:
    """Return the sample of the figures, and what the same model does without VQ beside it."""
    source = done.after or done.before
    samples = f"{source.samples:,} samples of the {done.split} split" if source else "no data"
    word = "accuracy" if _share(done.without_vq, "accuracy") else "task loss"
    without = _share(done.without_vq, SHARES[word])
    more = f"; {_other_model(done)}: {word} {without}" if without else ""
    if without and source is not None and source.chance is not None:
        more += f", a guess {source.chance:.3f}"
    paired = next((goal.paired for goal in done.goals if goal.paired), None)
    if paired:
        more += (
            f", difference {100 * paired.difference:+.1f} points (95 % interval {100 * paired.low:+.1f} to "
            f"{100 * paired.high:+.1f}, paired)"
        )
    began = "no training began" if done.ended in ("source", "nothing") else "the training ended"
    ended = f"; {began} because {ENDED[done.ended]}" if done.ended else ""
    if done.result not in (None, len(done.epochs)):
        ended += f", and epoch {done.result} of {len(done.epochs)} is the result"
    return f"measured on {samples}{more}{ended}"


def _other_model(done: Retraining) -> str:
    """Return the model without VQ that the figures are compared with, and the length of its training."""
    if done.bypassed:
        return "the checkpoint with z_e in place of its codes"
    goes_on, epochs = done.plan.start == "without-vq", done.plan.epochs
    long = f"for {count(epochs, 'epoch')}" if goes_on or len(done.epochs) > epochs else "as long"
    more = " before this training went on from it" if goes_on else ""
    return f"the same model without VQ, trained {long}{more}"


def _arm(arm: Arm) -> Item:
    figures = arm.figures
    parts = [
        f"perplexity {number(layer.perplexity)} of {number(layer.num_codes)}"
        for layer in figures.layers.values()
    ]
    parts = parts if len(parts) <= 2 else [parts[0], f"… {parts[-1]}"]
    known = figures.accuracy is not None
    parts.append(f"accuracy {figures.accuracy:.3f}" if known else f"task loss {figures.loss:.4g}")
    name = f"{arm.name}{' (chosen)' if arm.chosen else ''}"
    text = f"{', '.join(parts)} after {count(arm.epochs, 'epoch')}"
    return Item(name=name, text=f"{text}; {_price(arm.price)}" if arm.price else text)


def _price(price: Price) -> str:
    changes = [f"task loss {price.loss:+.4f}"]
    if price.accuracy is not None:
        changes.insert(0, f"accuracy {100 * price.accuracy:+.1f} points")
    if price.perplexity is not None:
        changes.insert(0, f"perplexity {price.perplexity:+.1f}")
    return f"against the plan after {count(price.epochs, 'epoch')}: {', '.join(changes)}"


def _limit(goal: Goal) -> str:
    if goal.name == "loss":
        return f"at most {goal.limit:.4g}"
    if goal.name == "usage":
        return f"at least {goal.limit:.0%} of the expected"
    reached = goal.value <= goal.limit if goal.name == "ece" else goal.value >= goal.limit
    within = ", within the paired interval" if goal.met and not reached else ""
    if goal.name == "ece":
        return f"at most {goal.limit:.3f}{within}"
    return f"at least {number(goal.limit) if goal.name == 'perplexity' else f'{goal.limit:.3f}'}{within}"


def _share(figures: Figures | None, name: Share) -> str:
    value = None if figures is None else getattr(figures, name)
    return "" if value is None else f"{value:.4f}" if name == "loss" else f"{value:.3f}"
