"""The results of an ablation: each cell's means over the seeds, and the share of each step in the cure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from vqdoctor.core.ablation import AblationFigures, Cell, CodebookFigures, StageFigures, Study
from vqdoctor.core.frozen import frozen
from vqdoctor.core.paired import TOLERANCE
from vqdoctor.core.retraining import MAX_ECE

COUNTS_CODES = 1.25
"""Ratio of two perplexities from which the difference counts. Seeds of a cured codebook differ by 1 %
(measured on digits, 256 codes, all steps: 223 ± 1.4 over three); those of a half-cured one by more, which
their spread tells."""
LEAST_PERPLEXITY, MOST_PERPLEXITY = 50.0, 200.0
LEAST_USAGE, MOST_USAGE = 0.4, 0.8
"""The recipe's expectation of a cured codebook of 256 or 512 codes: perplexity in codes, and active codes
as a share of K."""
FEWER = 250.0
"""Codes under which perplexity is expected to be 0.2 K at least, where VQ501 begins, and nothing at most."""


@frozen
class Mean:
    """A figure over the seeds.

    Attributes:
        value: the mean.
        spread: standard deviation over the seeds; None with one seed.
        count: how many seeds.
    """

    value: float
    spread: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Mean | None:
        """Return the mean of the known values; None where all are unknown."""
        known = [float(value) for value in values if value is not None]
        if not known:
            return None
        value = math.fsum(known) / len(known)
        spread = None
        if len(known) > 1:
            spread = math.sqrt(math.fsum((x - value) ** 2 for x in known) / (len(known) - 1))
        return cls(value=value, spread=spread, count=len(known))

    def beyond(self, other: Mean) -> bool:
        """Whether the seeds tell the two means apart: by two standard errors; unknown with one seed."""
        if self.spread is None or other.spread is None:
            return True
        return abs(self.value - other.value) > 2 * math.hypot(
            self.spread / math.sqrt(self.count), other.spread / math.sqrt(other.count)
        )


def lowest(figures: AblationFigures) -> CodebookFigures | None:
    """Return the layer whose perplexity is lowest in terms of its K; None without VQ."""
    layers = figures.layers.values()
    return min(layers, key=lambda layer: layer.perplexity / layer.num_codes, default=None)


def _of_layer(read: Callable[[CodebookFigures], float | None]) -> Callable[[AblationFigures], float | None]:
    def found(figures: AblationFigures) -> float | None:
        layer = lowest(figures)
        return None if layer is None else read(layer)

    return found


def _of_stages(read: Callable[[StageFigures], float | None]) -> Callable[[AblationFigures], float | None]:
    return lambda figures: None if figures.stages is None else read(figures.stages)


FIGURES: Mapping[str, Callable[[AblationFigures], float | None]] = {
    "loss": lambda f: f.loss,
    "loss_low": lambda f: f.loss_low,
    "loss_high": lambda f: f.loss_high,
    "accuracy": lambda f: f.accuracy,
    "accuracy_low": lambda f: f.accuracy_low,
    "accuracy_high": lambda f: f.accuracy_high,
    "ece": lambda f: f.ece,
    "ece_scaled": lambda f: f.ece_scaled,
    "temperature": lambda f: f.temperature,
    "coverage": lambda f: f.coverage,
    "set_size": lambda f: f.set_size,
    "perplexity": _of_layer(lambda layer: layer.perplexity),
    "active": _of_layer(lambda layer: layer.active),
    "num_codes": _of_layer(lambda layer: layer.num_codes),
    "ema_perplexity": _of_layer(lambda layer: layer.ema_perplexity),
    "ema_active": _of_layer(lambda layer: layer.ema_active),
    "error": _of_layer(lambda layer: layer.error),
    "parameters": lambda f: f.parameters,
    "convergence_epoch": lambda f: f.convergence_epoch,
    "clusters_used": _of_stages(lambda stages: stages.clusters_used),
    "states_used": _of_stages(lambda stages: stages.states_used),
    "length": _of_stages(lambda stages: stages.length),
    "state_length": _of_stages(lambda stages: stages.state_length),
    "expected_duration": _of_stages(lambda stages: stages.expected_duration),
    "true_length": _of_stages(lambda stages: stages.true_length),
}
"""The figures of a training by name; of several layers, those of the one that is used least."""


def means(study: Study, cell: Cell) -> dict[str, Mean]:
    """Return the figures of a cell over the seeds, those that are known."""
    done = study.of(cell)
    found = {name: Mean.of(read(figures) for figures in done) for name, read in FIGURES.items()}
    return {name: mean for name, mean in found.items() if mean is not None}


def missed(cell: Mapping[str, Mean], without_vq: Mapping[str, Mean] | None) -> tuple[str, ...]:
    """Return which of the recipe's expectations a cell with VQ misses, by its means, and on which side."""
    found = []
    value = {name: mean.value for name, mean in cell.items()}
    if "perplexity" in value:
        least, most = LEAST_PERPLEXITY, MOST_PERPLEXITY
        most_used = MOST_USAGE
        if value["num_codes"] < FEWER:
            least, most, most_used = LEAST_PERPLEXITY * value["num_codes"] / FEWER, math.inf, 1.0
        found += _side("perplexity", value["perplexity"], least, most)
        found += _side("usage", value["active"] / value["num_codes"], LEAST_USAGE, most_used)
    plain = None if without_vq is None else without_vq.get("accuracy")
    if plain is not None and "accuracy" in value and value["accuracy"] < plain.value - TOLERANCE:
        found.append("accuracy")
    if value.get("ece", 0.0) >= MAX_ECE:
        found.append("ECE")
    return tuple(found)


def _side(name: str, value: float, least: float, most: float) -> list[str]:
    if value < least:
        return [f"{name} under"]
    return [f"{name} over"] if value > most else []


@frozen
class Change:
    """How one figure differs between two cells.

    Attributes:
        before: the mean in the one.
        after: the mean in the other.
        counts: whether the difference is large enough to matter, and larger than what the seeds differ by.
    """

    before: Mean
    after: Mean
    counts: bool

    @property
    def difference(self) -> float:
        """The second mean less the first."""
        return self.after.value - self.before.value


@frozen
class Carried:
    """The part of one step in the cure.

    Attributes:
        step: the remedy.
        added: what changes when it joins the steps before it, by figure: "accuracy" or "loss", "perplexity".
        alone: what changes when it comes alone.
        left_out: what changes when it is the only one that is missing.
    """

    step: str
    added: Mapping[str, Change]
    alone: Mapping[str, Change]
    left_out: Mapping[str, Change]

    def cost(self, figure: str) -> float:
        """Return how much worse a figure is without the step alone, where that counts; else 0."""
        change = self.left_out.get(figure)
        if change is None or not change.counts:
            return 0.0
        if figure == "perplexity":
            return max(0.0, math.log(max(change.before.value, 1e-9) / max(change.after.value, 1e-9)))
        return max(0.0, change.difference if figure == "loss" else -change.difference)


def carried(study: Study) -> tuple[Carried, ...]:
    """Return the part of each step in the cure, as far as its cells are done."""
    table = {cell: means(study, cell) for cell in study.cells}
    by_group: dict[str, list[Cell]] = {}
    for cell in study.cells:
        by_group.setdefault(cell.group, []).append(cell)
    start = next(
        (cell for cell in by_group.get("reference", ()) if not (cell.without_vq or cell.remedies)), None
    )
    added, alone, left_out = (by_group.get(group, []) for group in ("added", "alone", "left out"))
    if start is None or not added:
        return ()
    chain, whole = [start, *added], added[-1]
    return tuple(
        Carried(
            step=cell.remedies[-1],
            added=_changes(table[chain[at]], table[cell]),
            alone=_changes(table[start], table[alone[at]]),
            left_out=_changes(table[whole], table[left_out[at]]),
        )
        for at, cell in enumerate(added)
    )


def _changes(before: Mapping[str, Mean], after: Mapping[str, Mean]) -> dict[str, Change]:
    task = "accuracy" if "accuracy" in before else "loss"
    return {
        name: Change(before=before[name], after=after[name], counts=_counts(name, before[name], after[name]))
        for name in (task, "perplexity")
        if name in before and name in after
    }


def _counts(name: str, before: Mean, after: Mean) -> bool:
    small, large = sorted((abs(before.value), abs(after.value)))
    if name == "accuracy":
        far = large - small >= TOLERANCE
    else:
        far = large >= COUNTS_CODES * small if name == "perplexity" else large >= (1 + TOLERANCE) * small
    return far and before.beyond(after)


def smallest(study: Study) -> tuple[Cell, Cell] | None:
    """Return the best cell with codes, and the smallest of these whose accuracy is as good to 1.5 points.

    Of models of the same size it is the one with the fewest remedies. None where no accuracy is known.
    """
    with_vq = [cell for cell in study.cells if not cell.without_vq]
    known = {cell: found for cell in with_vq if "accuracy" in (found := means(study, cell))}
    if not known:
        return None
    best = max(known, key=lambda cell: known[cell]["accuracy"].value)
    bar = known[best]["accuracy"].value - TOLERANCE
    good = [cell for cell, found in known.items() if found["accuracy"].value >= bar]
    return best, min(good, key=lambda cell: (known[cell]["parameters"].value, len(cell.remedies)))
