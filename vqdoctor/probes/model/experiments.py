"""The experiments of `--decide`: the same training steps on copies, each with one cause taken away.

Batches and seeds are the same for every copy, so that two copies differ by the change alone. Chance shows
where the same is trained twice, with the batches in another order.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from vqdoctor.core.evidence import Evidence, Experiments, Unavailable
from vqdoctor.core.experiments import GAIN, MORE_BATCHES, REMOVALS, USED, WITHOUT
from vqdoctor.core.frozen import frozen
from vqdoctor.models.task import Batch
from vqdoctor.probes.model._changes import CHANGES, PLACING, placed
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._copy import Held, TrainedCopy
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Missing, Probe

HELD = 8
"""Held batches: of the val split, or else of the train split."""
LEAST_HELD = 3
"""Held batches from which an effect has a spread."""
SAME = 1e-6
"""Relative difference of losses under which an estimator is what the layer has."""
NOTHING_OPEN = "the examination left no suspect that an experiment could tell from another"
FROM_THE_FILE = (WITHOUT, "scaled-z-e")
"""Experiments that always begin with the file's codes: without VQ there are none, and placed ones have the
scale of z_e already."""
_SOON = 3
ESTIMATOR = "straight-through"
_STRIDE = 1_000_003


@dataclass(kw_only=True, eq=False)
class _Bench:
    """The model and the batches of all experiments.

    Attributes:
        context: the model, its task and its layers.
        batches: training batches, one for each step at most.
        held: the held batches.
        base: the two runs that an experiment is compared with.
        seconds: what one of them took; 0 before.
        placed: the state in which these, and what is compared with them, begin where codes are placed.
    """

    context: ModelContext
    batches: Sequence[Batch]
    held: Sequence[Batch]
    base: tuple[_Run, ...] = ()
    seconds: float = 0.0
    placed: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def train(self, run: int, name: str = "") -> _Run:
        """Train a copy with the change of that name, or none; it stops at a loss that is not finite."""
        context, size = self.context, len(self.batches)
        start = run * (size // 2)  # the other order keeps neighbours together, as an unshuffled loader does
        copy = TrainedCopy(context=context, batches=[*self.batches[start:], *self.batches[:start]])
        with torch.no_grad():
            own = copy.model.state_dict() if self.placed else {}
            for key, value in self.placed.items():
                own[key].copy_(value)
        change = CHANGES[name](copy) if name else ""
        for number in range(context.experiment_steps):
            told = f"step {number + 1} of {context.experiment_steps}"
            cost = f" (about {max(self.seconds, 1):.0f} s)" if self.seconds else ""
            context.progress(f"experiment {name or 'without a change'}{cost}, {told}, on a copy")
            if number == _SOON and name == ESTIMATOR and self._same(copy.losses, run):
                raise Missing("the layer has one already")
            if not copy.step(context.seed + run * _STRIDE + number):
                break
        return _Run(change=change, losses=tuple(copy.losses), held=copy.held(self.held, context.seed))

    def _same(self, losses: Sequence[float], run: int) -> bool:
        pairs = zip(losses, self.base[run].losses, strict=False)
        return all(math.isclose(a, b, rel_tol=SAME) for a, b in pairs)

    def run(self, name: str) -> _Arm:
        """Run an experiment, and a second time where it takes a cause away and seems to help."""
        arm = _Arm(bench=self, name=name, runs=(self.train(0, name),))
        if not (arm.may_help and REMOVALS[name].codes):
            return arm
        return replace(arm, runs=(*arm.runs, self.train(1, name)))


@frozen
class _Arm:
    """An experiment, beside what it is compared with."""

    bench: _Bench
    name: str
    runs: tuple[_Run, ...]

    @property
    def gain(self) -> tuple[float, float]:
        """The share of the loss that the change takes away, and its spread; see `Experiments`."""
        gains, spreads = [], []
        for base, other in zip(self.bench.base, self.runs, strict=False):
            pairs = [a - b for a, b in zip(base.held.losses, other.held.losses, strict=True)]
            mean, count = sum(pairs) / len(pairs), len(pairs)
            error = math.sqrt(sum((d - mean) ** 2 for d in pairs) / (count - 1) / count)
            gains.append(math.copysign(_share(mean, base.held.loss), mean))
            spreads.append(_share(error, base.held.loss))
        return _nearest_to_none(gains), max(spreads)

    def factor(self, layer: str) -> float:
        """The factor on the perplexity of a layer; see `Experiments`."""
        pairs = zip(self.bench.base, self.runs, strict=False)
        logs = [math.log(b.held.perplexity[layer] / a.held.perplexity[layer]) for a, b in pairs]
        return math.exp(_nearest_to_none(logs))

    @property
    def may_help(self) -> bool:
        """Whether it shows help that a further run could confirm."""
        return self.gain[0] >= GAIN / 2 or self._uses_more

    @property
    def helps(self) -> bool:
        """Whether it takes loss away, or brings codes into use, in all its runs."""
        return len(self.runs) > 1 and (self.gain[0] >= GAIN or self._uses_more)

    @property
    def _uses_more(self) -> bool:
        if not REMOVALS[self.name].by_usage:
            return False
        held = [run.held.perplexity for run in (*self.bench.base, *self.runs)]
        return any(self.factor(layer) >= USED for layer in held[0] if all(layer in h for h in held))


@frozen
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
    if context.experiments is not None and not context.experiments:
        yield from by_layer(context, Experiments, {}, NOTHING_OPEN)
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
        raise Missing(least if context.mapped else "no VQ layer is seen at work", MORE_BATCHES)
    copy = TrainedCopy(context=context, batches=batches)
    before = copy.held(held, context.seed)
    bench = _Bench(context=context, batches=batches, held=held)
    names = [name for name in CHANGES if context.experiments is None or name in context.experiments]
    began = time.perf_counter()
    bench = replace(bench, base=tuple(bench.train(run) for run in range(2)))
    bench.seconds = (time.perf_counter() - began) / 2
    most = sum(1 if name == WITHOUT else 2 for name in names) * bench.seconds
    context.progress(f"experiments of {bench.seconds:.1f} s a run, at most {most:.0f} s: {', '.join(names)}")
    on_placed: _Bench | None = None
    done: dict[str, _Arm] = {}
    left_out = []
    for name in names:
        own = bench if on_placed is None or name in FROM_THE_FILE else on_placed
        try:
            done[name] = own.run(name)
        except Missing as missing:
            left_out.append(f"{name}: {missing.reason}")
            continue
        if name == PLACING and done[name].helps:
            start = TrainedCopy(context=context, batches=batches)
            placed(start)
            state = {key: value.clone() for key, value in start.model.state_dict().items()}
            on_placed = replace(bench, base=done[name].runs, placed=state)
    told = _Told(bench=bench, copy=copy, before=before, done=done, left_out=tuple(left_out))
    return {layer: told.on(layer) for layer in context.mapped}


@frozen
class _Told:
    """All that was run, for the evidence of each layer."""

    bench: _Bench
    copy: TrainedCopy
    before: Held
    done: dict[str, _Arm]
    left_out: tuple[str, ...]

    def on(self, layer: str) -> Experiments:
        """Return the evidence of a layer."""
        context, arms = self.bench.context, tuple(self.done.values())
        same = [run.held for run in self.bench.base]
        firsts = [(arm.runs[0].held, arm.bench.base[0].held) for arm in arms]
        every = (self.before, *same, *(run.held for arm in arms for run in (*arm.runs, *arm.bench.base)))
        seen = all(layer in held.perplexity for held in every)
        exact = all(layer in held.error for held in every)
        used = [held.perplexity[layer] for held in same] if seen else [1.0, 1.0]
        return Experiments(
            source="trace",
            sample_size=context.experiment_steps,
            names=tuple(self.done),
            changes=tuple(arm.runs[0].change for arm in arms),
            runs=tuple(len(arm.runs) for arm in arms),
            held=len(self.bench.held),
            optimizer=type(self.copy.optimizer).__name__,
            own=hasattr(context.task, "optimizer"),
            learning_rate=float(self.copy.optimizer.param_groups[0]["lr"]),
            vq_weight=self.copy.vq_weight,
            weight_known=context.vq_weight is not None,
            loss_before=self.before.loss,
            loss_unchanged=same[0].loss,
            placed=tuple(bool(arm.bench.placed) for arm in arms),
            loss=tuple(held.loss for held, _ in firsts),
            loss_without=tuple(base.loss for _, base in firsts),
            gain=tuple(arm.gain[0] for arm in arms),
            spread=tuple(arm.gain[1] for arm in arms),
            perplexity_before=self.before.perplexity[layer] if seen else None,
            perplexity_unchanged=used[0] if seen else None,
            perplexity=tuple(held.perplexity[layer] for held, _ in firsts) if seen else (),
            perplexity_without=tuple(base.perplexity[layer] for _, base in firsts) if seen else (),
            perplexity_factor=tuple(arm.factor(layer) for arm in arms) if seen else (),
            error_unchanged=same[0].error[layer] if exact else None,
            error=tuple(held.error[layer] for held, _ in firsts) if exact else (),
            chance=(_share(same[0].loss - same[1].loss, same[0].loss), abs(math.log(used[1] / used[0]))),
            left_out=self.left_out,
        )


def _nearest_to_none(values: Sequence[float]) -> float:
    """Return the value of the least size; 0 where the signs differ."""
    agree = min(values) > 0 or max(values) < 0
    return min(values, key=abs) if agree else 0.0


def _share(difference: float, of: float) -> float:
    return abs(difference) / (abs(of) or 1.0)


PROBE = Probe(kinds=(Experiments,), measure=measure, mode="both", needs_codebook=False, needs_vq_loss=True)
