"""The bench's second half: sick models of the sample retrained by the plan, by its trial, and at random.

The random choice gets as many remedies as the plan had, the plan's goals, and the same budget. What is done
is kept, as in `fault_bench.bench`.
"""

from __future__ import annotations

import json
import logging
import random
import traceback
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from fault_bench.bench import file, spread, tool, trained
from fault_bench.cures import EPOCHS
from fault_bench.host import BenchTask
from fault_bench.sample import DEVELOPMENT, HELD, Model
from fault_bench.table import key
from vqdoctor.core.errors import UserError
from vqdoctor.core.report import Report
from vqdoctor.core.retraining import Figures, Goals, Retraining
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine import exit_code
from vqdoctor.engine.retrain import retrain
from vqdoctor.remedies import all_remedies

PLAN, TRIAL, RANDOM = "plan", "trial", "random"
HOW = (PLAN, TRIAL, RANDOM)
WORSE = 0.01
"""A model is worse than before by this much less accuracy, or this share more loss; less is chance."""
UNLEARNED = "the model without VQ learns nothing either"
"""The words for a training that ends after the one without VQ."""
Shown = tuple[float | None, float | None, float | None, float | None]
"""Accuracy, task loss, lowest perplexity of a layer, and calibration error."""


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """What became of one model by one way of retraining it; figures are the report's own, of val.

    Attributes:
        how: "plan", "trial" or "random".
        remedies: what was applied.
        before: the figures of the sick model.
        after: those of the retrained one.
        without_vq: those of the same model without VQ, trained as long; all None where it was not trained.
        cured: whether all goals are met.
        missed: the goals that are not.
        ended: why the training ended.
        refused: why it was refused before it began.
        exit: exit code of the examination of the output.
    """

    number: int
    key: str
    tool: str
    how: str
    remedies: tuple[str, ...] = ()
    before: Shown = (None,) * 4
    after: Shown = (None,) * 4
    without_vq: Shown = (None,) * 4
    cured: bool = False
    missed: tuple[str, ...] = ()
    ended: str = ""
    epochs: int = 0
    seconds: float = 0.0
    refused: str = ""
    exit: int = 2
    crash: str = ""

    @classmethod
    def read(cls, line: str) -> Treatment:
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(line).items()})

    @property
    def result(self) -> str:
        """What it came to, in a few words."""
        if self.refused or self.crash:
            return f"refused: {self.refused}" if self.refused else "crashed"
        if self.held:
            return "nothing to cure: all goals held"
        said = "cured" if self.cured else f"misses {', '.join(dict.fromkeys(self.missed))}"
        return f"{said}, worse than before" if self.worse else said

    @property
    def held(self) -> bool:
        """Whether no training began, since all goals held before."""
        return self.ended == "nothing"

    @property
    def worse(self) -> bool:
        """Whether the model does its own task worse than before."""
        (accuracy, loss, *_), (accuracy_before, loss_before, *_) = self.after, self.before
        if accuracy is not None and accuracy_before is not None:
            return accuracy < accuracy_before - WORSE
        return loss is not None and loss_before is not None and loss > loss_before * (1 + WORSE)


def chosen(models: Iterable[Model], count: int, seed: int) -> list[Model]:
    """Return as many of the sick models, each part by its share."""
    sick = [model for model in models if model.kinds]
    draw = random.Random(f"{seed} cures")
    some = []
    for part in (DEVELOPMENT, HELD):
        those = [model for model in sick if model.part == part]
        some += draw.sample(those, k=round(count * len(those) / len(sick)))
    return sorted(some, key=lambda model: model.number)


def treatments(
    models: Iterable[Model], folder: Path, jobs: int = 1, epochs: int = EPOCHS, ways: Sequence[str] = HOW
) -> Iterator[tuple[Model, tuple[Treatment, ...]]]:
    """Treat what the folder does not hold yet; in the order in which they are done.

    Args:
        models: the sick models.
        folder: where they and their treatments are kept.
        jobs: how many processes work at once.
        epochs: the budget of each retraining.
        ways: those of `HOW` that are tried; the plan always is.
    """
    ways = tuple(how for how in HOW if how == PLAN or how in ways)
    (folder / "models").mkdir(parents=True, exist_ok=True)
    kept = folder / "cures.jsonl"
    done = defaultdict(dict)
    if kept.exists():
        for treatment in map(Treatment.read, kept.read_text().splitlines()):
            done[treatment.number, treatment.key, treatment.tool][treatment.how] = treatment
    left = []
    for model in models:
        found = done[model.number, key(model.setup), tool()]
        if set(found) >= set(ways):
            yield model, tuple(found[how] for how in ways)
        else:
            left.append(model)
    for model, those in spread(treated, left, jobs, folder, epochs, ways):
        with kept.open("a") as lines:
            lines.writelines(json.dumps(asdict(treatment)) + "\n" for treatment in those)
        yield model, those


def treated(model: Model, folder: Path, epochs: int, ways: Sequence[str] = HOW) -> tuple[Treatment, ...]:
    """Retrain one model in these ways; the plan comes first, since the random choice is measured by it."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    sick = trained(model, folder)
    settings = Settings(seed=model.number, epochs=epochs, overwrite=True)
    plan, report = _one(model, sick, PLAN, settings)
    done = [plan]
    if TRIAL in ways:
        done.append(_one(model, sick, TRIAL, replace(settings, trial=True))[0])
    if RANDOM in ways:
        names = [r.name for r in all_remedies() if r.plan is not None and not r.changes_model]
        amount = min(len(plan.remedies), len(names))
        if report is None or report.retraining is None or not amount:  # refused, or the plan was to train on
            done.append(replace(plan, how=RANDOM))
        else:
            drawn = tuple(random.Random(f"{model.number} remedies").sample(names, k=amount))
            goals = _same_goals(report.retraining)
            done.append(_one(model, sick, RANDOM, replace(settings, only=drawn, goals=goals))[0])
    return tuple(done)


def _one(model: Model, sick: Path, how: str, settings: Settings) -> tuple[Treatment, Report | None]:
    blank = Treatment(number=model.number, key=key(model.setup), tool=tool(), how=how)
    output = sick.with_suffix(f".{how}.pt")
    output.with_name(output.name + ".resume").unlink(missing_ok=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            task = UserModel(task=BenchTask(model.setup))
            report = retrain(sick, output, user_model=task, settings=settings)
    except UserError as error:
        return replace(blank, refused=str(error)), None
    except Exception:
        return replace(blank, crash=traceback.format_exc(limit=-6)), None
    done = report.retraining
    assert done is not None
    untrained = done.ended in ("source", "nothing") and done.source
    told = replace(
        blank,
        remedies=tuple(repair.remedy for repair in report.repairs if repair.status == "applied"),
        before=_shown(done.before),
        after=_shown(done.after),
        without_vq=_shown(done.without_vq),
        cured=done.cured,
        missed=tuple(goal.name for goal in done.goals if not goal.met),
        ended="interrupted" if done.interrupted else done.ended,
        epochs=len(done.epochs),
        seconds=round(done.seconds, 1),
        refused=UNLEARNED if done.ended == "unlearned" else done.source[0].why if untrained else "",
        exit=int(exit_code(report)),
    )
    return told, report


def _shown(figures: Figures | None) -> Shown:
    if figures is None:
        return (None,) * 4
    lowest = min((layer.perplexity for layer in figures.layers.values()), default=None)
    return figures.accuracy, figures.loss, lowest, figures.ece


def _same_goals(done: Retraining) -> Goals:
    """Return the goals of the plan, so that the random choice needs no training without VQ of its own."""
    limits = {goal.name: goal.limit for goal in done.goals}
    return Goals(min_accuracy=limits.get("accuracy"), max_ece=limits.get("ece"), max_loss=limits.get("loss"))


def markdown(done: Iterable[tuple[Model, tuple[Treatment, ...]]], folder: Path) -> str:
    """Return one table a part, and what each way came to."""
    parts = defaultdict(list)
    for model, those in sorted(done, key=lambda found: found[0].number):
        parts[model.part].append((model, those))
    text = ["# Cures"]
    for part in (DEVELOPMENT, HELD):
        if parts[part]:
            text += [f"\n## {part.capitalize()}: {len(parts[part])} sick models\n", *_ways(parts[part])]
            text += ["", *_table(parts[part]), "\nCommands:\n"]
            for model, _ in parts[part]:
                path = file(model, folder)
                command = f"vqdoctor fix {path} --retrain --task {path.with_suffix('.py')}:task"
                text.append(f"- {model.number}: `{command} --seed {model.number} -o cured.pt`")
    return "\n".join(text) + "\n"


def _ways(done: list[tuple[Model, tuple[Treatment, ...]]]) -> list[str]:
    table = [
        "| | cured | not cured | nothing to cure | refused | crashed | cured, yet worse | epochs | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for how in dict.fromkeys(t.how for _, treatments in done for t in treatments):
        those = [t for _, treatments in done for t in treatments if t.how == how]
        ran = [t for t in those if not (t.refused or t.crash or t.held)]
        cured = sum(t.cured for t in ran)
        mean = [sum(getattr(t, name) for t in ran) / max(len(ran), 1) for name in ("epochs", "seconds")]
        apart = [
            sum(map(bool, kind)) for kind in zip(*((t.held, t.refused, t.crash) for t in those), strict=True)
        ]
        counts = (len(ran) - cured, *apart, sum(t.cured and t.worse for t in ran))
        cells = (
            how,
            f"{cured} ({cured / max(len(ran), 1):.0%})",
            *counts,
            *(f"{value:.0f}" for value in mean),
        )
        table.append(f"| {' | '.join(map(str, cells))} |")
    return table


def _table(done: list[tuple[Model, tuple[Treatment, ...]]]) -> list[str]:
    table = [
        "| model | by | task before → after (without VQ) | perplexity | ECE | epochs | s | ended | result |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | --- | --- |",
    ]
    for model, treatments in done:
        for t in treatments:
            place = 0 if model.labelled else 1
            before, after, without = (_number(of[place]) for of in (t.before, t.after, t.without_vq))
            cells = (
                f"{model.number} {model.name}, {model.setup.implementation}, {model.setup.data}",
                t.how,
                f"{before} → {after} ({without})",
                f"{_number(t.before[2], 1)} → {_number(t.after[2], 1)} of {model.setup.codes}",
                _number(t.after[3]),
                str(t.epochs),
                f"{t.seconds:.0f}",
                t.ended,
                t.result,
            )
            table.append(f"| {' | '.join(cells)} |")
    return table


def _number(value: float | None, places: int = 3) -> str:
    return "?" if value is None else f"{value:.{places}f}"
