"""When the monitor warns, against the step at which the perplexity first falls under its limit.

`make accept` prints the tables. A training's perplexity is measured apart from the monitor: on the whole
train split, in eval mode, at the end of each interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from fault_bench.host import _Training
from fault_bench.setup import Setup

from vqdoctor.checks import all_checks
from vqdoctor.checks._usage import least_perplexity
from vqdoctor.core.evidence import Course
from vqdoctor.core.trace import Event
from vqdoctor.engine.evaluate import evaluate
from vqdoctor.engine.monitor import Monitor
from vqdoctor.metrics.entropy import plug_in_entropy
from vqdoctor.probes.trace import courses
from vqdoctor.reference.recipes import ON_MOTION, RECIPES
from vqdoctor.reference.task import DIGITS, MOTION, ReferenceTask
from vqdoctor.reference.train import _Run
from vqdoctor.saved.trace import read_trace

pytestmark = pytest.mark.accept

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"
EVERY = 100
SEEDS = (0, 1, 2)
STEPS = 800
CAUSES = {
    "no-ste": {"VQ101"},
    "overweighted": {"VQ201"},
    "stalled-ema": {"VQ301", "VQ302"},
    "dead-codes": {"VQ502"},
    "masked": {"VQ301", "VQ302"},
    "unnormalised-ema": {"VQ309"},
    "sphere-codes": {"VQ310"},
}
"""The first finding on the finished checkpoint; a codebook apart from the data is the start of VQ302."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """One training with the monitor beside it.

    Attributes:
        fell: the step at which the perplexity was first under its limit; None where it never was.
        first: the first event; None where there was none.
        cause: the first event that has one of the right codes.
    """

    fell: int | None
    first: Event | None
    cause: Event | None

    def in_time(self) -> bool:
        """Whether the cause was named before the fall, or within one interval of it."""
        return self.cause is not None and (self.fell is None or self.cause.step <= self.fell + EVERY)

    def line(self, name: str, seed: int) -> str:
        told = " ".join(
            "-" if event is None else f"{event.code}@{event.step}" for event in (self.first, self.cause)
        )
        return f"{name:22} {seed}  {self.fell or '-':>6}  {told:26} {'in time' if self.in_time() else 'LATE'}"


def watched(name: str, seed: int, out: Path) -> Watched:
    """Train the reference model by a recipe, as `reference.train` does, with the monitor beside it."""
    recipe, data_set = RECIPES[name], MOTION if name in ON_MOTION else DIGITS
    with np.load(SAMPLES / data_set.file) as data:
        task = ReferenceTask(
            data["x"], data["y"], data["split"], recipe.config(seed), classes=data_set.classes
        )
    torch.manual_seed(seed)
    model = task.model()
    optimizer = task.optimizer(model)
    run = _Run(recipe, task, model, optimizer, torch.Generator().manual_seed(seed))
    events: list[Event] = []
    monitor = Monitor(model, task, every=EVERY, out=out, on_collapse=events.append, optimizer=optimizer)
    fell: list[int] = []

    def after(*_: object) -> None:
        monitor.step()
        if monitor.steps % EVERY == 0 and not fell:
            model.eval()
            with torch.no_grad():
                chosen = torch.cat([model(x)["indices"].flatten() for x, _ in task.batches("train")])
            model.train()
            counts = torch.bincount(chosen, minlength=recipe.num_codes)
            if float(np.exp(plug_in_entropy(counts.numpy()))) < least_perplexity(recipe.num_codes):
                fell.append(monitor.steps)

    optimizer.register_step_post_hook(after)
    with monitor:
        for epoch in range(recipe.epochs):
            if recipe.data_init and epoch == recipe.data_init_epoch:
                run.place_codes(model.vq)
            run.train(epoch)
            if monitor.steps >= STEPS:
                break
    own = [event for event in events if event.code in CAUSES.get(name, ())]
    return Watched(fell=next(iter(fell), None), first=next(iter(events), None), cause=next(iter(own), None))


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def show(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    return show


def test_the_cause_is_named_in_time(tmp_path: Path, shown: Callable[[str], None]) -> None:
    shown("\nfault                seed    fell  first event, right cause")
    rows: list[Watched] = []
    for seed in SEEDS:
        for name in CAUSES:
            rows.append(watched(name, seed, tmp_path / f"{name}-{seed}.vqtrace.jsonl"))
            shown(rows[-1].line(name, seed))
    in_time = sum(row.in_time() for row in rows)
    shown(f"cause named before the fall or within one interval: {in_time} of {len(rows)}")
    assert in_time >= 0.9 * len(rows)


HEALTHY = [
    Setup(implementation=implementation, data=data, codes=codes, seed=seed, steps=STEPS)
    for seed, implementation in enumerate(("VectorQuantize", "diffusers", "DAC"))
    for data, codes in (("digits", 128), ("digit-classes", 256), ("sequences", 64))
]
"""Nine trainings of three libraries; none took part in the choice of a limit, by other seeds than these."""
OVER_TIME = ("VQ521", "VQ522", "VQ523", "VQ524")


def over_time(file: Path) -> Iterator[str]:
    """Yield the findings on the whole course of a trace."""
    trace = read_trace(file)
    layers = [layer.name for layer in trace.start.layers]
    checks = [check for check in all_checks() if check.code in OVER_TIME]
    evidence = [item for item in courses(trace, layers) if isinstance(item, Course)]
    assert len(evidence) == len(layers)
    yield from (f.code for f in evaluate(checks, layers, evidence, ()).findings)


def test_healthy_trainings_of_three_libraries_have_no_warning(
    tmp_path: Path, shown: Callable[[str], None]
) -> None:
    told: list[str] = []
    collapsed = 0
    for number, setup in enumerate(HEALTHY):
        file = tmp_path / f"{number}.vqtrace.jsonl"
        torch.manual_seed(setup.seed)
        run = _Training(setup)
        monitor = Monitor(run.model, run.task, every=50, out=file, on_collapse=lambda event: None)
        run.optimizer.register_step_post_hook(lambda *_, monitor=monitor: monitor.step())
        with monitor:
            run.run()
        found = [*(event.code for event in monitor.events), *over_time(file)]
        ends = [round(row.perplexity or 0) for row in read_trace(file).intervals[-2:]]
        shown(f"{setup.implementation:18} {setup.data:14} K={setup.codes:4} perplexity {ends}: {found}")
        if min(ends) < least_perplexity(setup.codes):  # the codec collapses in earnest on the digits
            collapsed += 1
        else:
            told += found
    assert not told and collapsed <= 1
