"""The experiments of `--decide`: the same training steps on copies, each with one cause taken away.

Batches and seeds are the same for every copy, so that two copies differ by the change alone. What chance
gives shows where the same is trained twice, with the batches in another order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from vqdoctor.core.evidence import Evidence, Experiments, Unavailable
from vqdoctor.core.experiments import GAIN, REMOVALS, USED
from vqdoctor.models.task import Batch
from vqdoctor.probes.model._changes import CHANGES
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._copy import Held, TrainedCopy
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Missing, Probe

HELD = 8
"""Held batches: of the val split, or else of the train split."""
LEAST_HELD = 3
"""Held batches from which an effect has a spread."""
SAME = 1e-6
"""Relative difference of losses under which a change changes nothing."""
_SOON = 3
_STRIDE = 1_000_003


@dataclass(kw_only=True, eq=False)
class _Bench:
    """What all experiments share.

    Attributes:
        context: the model, its task and its layers.
        batches: training batches, one for each step at most.
        held: the held batches.
        unchanged: the two runs without a change.
    """

    context: ModelContext
    batches: Sequence[Batch]
    held: Sequence[Batch]
    unchanged: tuple[_Run, ...] = ()

    def train(self, run: int, name: str = "") -> _Run:
        """Train a copy with the change of that name, or none; it stops at a loss that is not finite."""
        context, size = self.context, len(self.batches)
        start = run * (size // 2)  # the other order keeps neighbours together, as an unshuffled loader does
        copy = TrainedCopy(context=context, batches=[*self.batches[start:], *self.batches[:start]])
        change = CHANGES[name](copy) if name else ""
        for number in range(context.experiment_steps):
            if number == _SOON and name and self._same(copy.losses, run):
                raise Missing("it changes nothing in this model")
            if not copy.step(context.seed + run * _STRIDE + number):
                break
        return _Run(change=change, losses=tuple(copy.losses), held=copy.held(self.held, context.seed))

    def _same(self, losses: Sequence[float], run: int) -> bool:
        pairs = zip(losses, self.unchanged[run].losses, strict=False)
        return all(math.isclose(a, b, rel_tol=SAME) for a, b in pairs)

    def may_help(self, name: str, run: _Run) -> bool:
        """Whether a first run shows help, large enough to be told if a second run agrees."""
        base = self.unchanged[0].held
        gain = (base.loss - run.held.loss) / (abs(base.loss) or 1.0)
        ratios = [
            run.held.perplexity[layer] / value
            for layer, value in base.perplexity.items()
            if layer in run.held.perplexity
        ]
        helps = gain >= GAIN / 2 or any(ratio >= USED for ratio in ratios)
        return helps and bool(REMOVALS[name].codes)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One training: its change in words, the losses of its steps, and its answers on the held batches."""

    change: str
    losses: tuple[float, ...]
    held: Held


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield the experiments of every layer, if they were asked for."""
    if context.experiment_steps < 1:
        yield from by_layer(context, Experiments, {}, "no experiments were asked for", "--decide")
        return
    try:
        measured = _experiments(context)
    except Missing as missing:
        yield from by_layer(context, Experiments, {}, missing.reason, missing.hint)
        return
    yield from by_layer(context, Experiments, measured)


def _experiments(context: ModelContext) -> dict[str, Evidence | Missing]:
    """Return the evidence of each layer that is seen at work."""
    batches = list(itertools.islice(context.task.batches("train"), context.experiment_steps))
    held = list(itertools.islice(context.task.batches("val"), HELD))
    if len(held) < LEAST_HELD:
        held = batches[:HELD]
    if len(held) < LEAST_HELD or not context.mapped:
        least = f"an effect takes {LEAST_HELD} batches to be told from chance; the task serves {len(held)}"
        raise Missing(least if context.mapped else "no VQ layer is seen at work", "smaller batches")
    bench, told = _Bench(context=context, batches=batches, held=held), "experiment 1: the steps unchanged"
    context.progress(told)
    first = TrainedCopy(context=context, batches=batches)
    before = first.held(held, context.seed)
    bench = replace(bench, unchanged=tuple(bench.train(run) for run in range(2)))
    done: dict[str, list[_Run]] = {}
    left_out = []
    for number, name in enumerate(CHANGES, start=2):
        context.progress(f"experiment {number} of {len(CHANGES) + 1}: {name}")
        try:
            runs = [bench.train(0, name)]
            done[name] = [*runs, bench.train(1, name)] if bench.may_help(name, runs[0]) else runs
        except Missing as missing:
            left_out.append(f"{name}: {missing.reason}")
    return {layer: _evidence(layer, bench, first, before, done, left_out) for layer in context.mapped}


def _evidence(
    layer: str,
    bench: _Bench,
    copy: TrainedCopy,
    before: Held,
    done: dict[str, list[_Run]],
    left_out: Sequence[str],
) -> Experiments:
    context, same = bench.context, [run.held for run in bench.unchanged]
    helds = [[run.held for run in runs] for runs in done.values()]
    gains = [_gain(same, one) for one in helds]
    seen = all(layer in h.perplexity for h in (before, *same, *itertools.chain(*helds)))
    exact = all(layer in h.error for h in (same[0], *(one[0] for one in helds)))
    used = [h.perplexity[layer] for h in same] if seen else [1.0, 1.0]
    return Experiments(
        source="trace",
        sample_size=context.experiment_steps,
        names=tuple(done),
        changes=tuple(runs[0].change for runs in done.values()),
        runs=tuple(map(len, helds)),
        held=len(bench.held),
        optimizer=type(copy.optimizer).__name__,
        own=hasattr(context.task, "optimizer"),
        learning_rate=float(copy.optimizer.param_groups[0]["lr"]),
        vq_weight=copy.vq_weight,
        weight_known=context.vq_weight is not None,
        loss_before=before.loss,
        loss_unchanged=same[0].loss,
        loss=tuple(one[0].loss for one in helds),
        gain=tuple(gain for gain, _ in gains),
        spread=tuple(spread for _, spread in gains),
        perplexity_before=before.perplexity[layer] if seen else None,
        perplexity_unchanged=used[0] if seen else None,
        perplexity=tuple(one[0].perplexity[layer] for one in helds) if seen else (),
        perplexity_factor=tuple(_factor(used, [h.perplexity[layer] for h in one]) for one in helds)
        if seen
        else (),
        error_unchanged=same[0].error[layer] if exact else None,
        error=tuple(one[0].error[layer] for one in helds) if exact else (),
        chance=(_share(same[0].loss - same[1].loss, same[0].loss), abs(math.log(used[1] / used[0]))),
        left_out=tuple(left_out),
    )


def _gain(same: Sequence[Held], changed: Sequence[Held]) -> tuple[float, float]:
    """Return the share of the loss that a change takes away, and its spread; see `Experiments`."""
    gains, spreads = [], []
    for base, other in zip(same, changed, strict=False):
        pairs = [a - b for a, b in zip(base.losses, other.losses, strict=True)]
        mean, count = sum(pairs) / len(pairs), len(pairs)
        error = math.sqrt(sum((d - mean) ** 2 for d in pairs) / (count - 1) / count)
        gains.append(math.copysign(_share(mean, base.loss), mean))
        spreads.append(_share(error, base.loss))
    return _nearest_to_none(gains), max(spreads)


def _factor(same: Sequence[float], changed: Sequence[float]) -> float:
    logs = [math.log(c / s) for s, c in zip(same, changed, strict=False)]
    return math.exp(_nearest_to_none(logs))


def _nearest_to_none(values: Sequence[float]) -> float:
    """Return the value of the least size; 0 where the signs differ."""
    agree = min(values) > 0 or max(values) < 0
    return min(values, key=abs) if agree else 0.0


def _share(difference: float, of: float) -> float:
    return abs(difference) / (abs(of) or 1.0)


PROBE = Probe(kinds=(Experiments,), measure=measure, mode="both", needs_vq_loss=True)
