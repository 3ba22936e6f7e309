"""The experiments of `--decide`: which causes each takes away, and what its numbers say."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from vqdoctor.core.evidence import NOT_FINITE, Evidence, Experiments
from vqdoctor.core.frozen import frozen

STEPS = 32
"""Training steps of each experiment. On small models 32 steps of Adam removed 13 to 50 % of the loss where a
cause was taken away, and a run of nine experiments took 8 to 20 s on one core."""
MOST_STEPS = 128
"""The most steps of an experiment, whatever the user asks of a look at the training."""

GAIN = 0.1
"""Least share of the task loss by which a change must lower it to help. On trained models without a fault
(seven quantizers) a change of the training lowered it by 0.08 at most, and newly placed codes by 0.16."""
SPREADS = 3.0
"""Least size of an effect in units of its own spread."""
USED = 2.0
"""Least factor on the perplexity by which a change helps although the loss stays. Two runs of one training
differed by 1.3 at most."""
MORE_BATCHES = "smaller batches"
"""The hint where there are too few batches for a spread."""
ON_PLACED = "on codes placed by k-means, "
SHOWN = 0.16
"""Least share of the task loss for an experiment to name a cause that no measurement found: twice what a
change of the training lowered on the same sound models."""
WITHOUT = "without-vq"
"""The experiment that has no codes: a comparison, which takes no cause away."""


@frozen
class Removal:
    """A change to a copy of the model, or to its training, that takes a cause away.

    Attributes:
        name: its effect, in a few words with dashes.
        codes: the checks of the causes that it takes away.
        shows: the check of the cause that a large effect shows although no measurement found it; "" for none.
        treats: the checks of the symptoms that it improves whatever their cause is.
        by_usage: whether it helps where more codes are used although the loss stays. Of others that proves
            nothing: whatever slows a training down keeps codes in use for a while.
    """

    name: str
    codes: tuple[str, ...] = ()
    shows: str = ""
    treats: tuple[str, ...] = ()
    by_usage: bool = False


REMOVALS = {
    removal.name: removal
    for removal in (
        Removal(
            name="codes-from-data",
            codes=("VQ301", "VQ302", "VQ304", "VQ306", "VQ313"),
            treats=("VQ501", "VQ502", "VQ503"),
            by_usage=True,
        ),
        Removal(name="lighter-vq-loss", codes=("VQ201", "VQ204"), shows="VQ201"),
        Removal(name="heavier-vq-loss", codes=("VQ202",), shows="VQ202"),
        Removal(name="straight-through", codes=("VQ101",)),
        Removal(name="lower-rate", codes=("VQ404",), shows="VQ404"),
        Removal(name="higher-rate", codes=("VQ401", "VQ406")),
        Removal(name="faster-ema", codes=("VQ302",), by_usage=True),
        Removal(name="frozen-codebook", codes=("VQ104", "VQ303", "VQ308", "VQ309", "VQ505")),
        Removal(name="shuffled-samples", codes=("VQ403",)),
        Removal(name="scaled-input", codes=("VQ314",)),
        Removal(name="scaled-z-e", codes=("VQ310", "VQ314"), shows="VQ310", by_usage=True),
        Removal(name=WITHOUT),
    )
}
"""The experiments by name, in the order in which they are run."""
MOST_IN_ALL = (2 * len(REMOVALS) + 1) * STEPS
"""Training steps of all of them at most: each is run twice, and so are the steps without a change; the
comparison without VQ is run once."""


@frozen
class Effect:
    """The effect of an experiment on one layer.

    Attributes:
        removal: the experiment.
        verdict: whether the change helps, does nothing beyond its spread, or harms.
        gain: the share of the task loss that it removes; negative where it adds.
        factor: the factor on the perplexity; 1 where it is unknown.
        change: what was changed, in words that follow "with".
        figures: the numbers after the change.
        told: the numbers with the change and without, as one sentence without a full stop.
    """

    removal: Removal
    verdict: Literal["helps", "nothing", "harms"]
    gain: float
    factor: float
    change: str
    figures: str
    told: str

    @property
    def helps(self) -> bool:
        """Whether the change helps."""
        return self.verdict == "helps"

    @property
    def strength(self) -> float:
        """How much it helps: its gain; where only more codes are used, no more than the least gain."""
        return max(self.gain, GAIN)


def effects(evidence: Iterable[Evidence], layer: str | None = None) -> tuple[Effect, ...]:
    """Return the effects of the experiments on a layer; of the whole model, on its first layer."""
    for item in evidence:
        if isinstance(item, Experiments) and layer in (item.layer, None):
            return tuple(_effect(item, i) for i, name in enumerate(item.names) if name in REMOVALS)
    return ()


def unchanged(item: Experiments) -> str:
    """Return the numbers before and after the steps without a change."""
    said = f"task loss {_loss(item.loss_before)} before and {_loss(item.loss_unchanged)} after"
    if item.perplexity_before is not None and item.perplexity_unchanged is not None:
        said += f", perplexity {item.perplexity_before:.3g} and {item.perplexity_unchanged:.3g}"
    return said


def _effect(item: Experiments, i: int) -> Effect:
    removal, gain = REMOVALS[item.names[i]], item.gain[i]
    clear = abs(gain) >= max(GAIN, SPREADS * item.spread[i])
    # a training that runs away makes every change look good, so the loss before it counts as well
    lower = item.loss[i] <= item.loss_before - GAIN * abs(item.loss_before)
    codes = item.perplexity_factor and removal.name != WITHOUT
    factor = item.perplexity_factor[i] if codes else 1.0
    more_codes = removal.by_usage and math.log(factor) >= max(math.log(USED), SPREADS * item.chance[1])
    verdict: Literal["helps", "nothing", "harms"] = "nothing"
    if clear and gain < 0:
        verdict = "harms"
    elif (clear and lower) or more_codes:
        verdict = "helps"
    begun = ON_PLACED if item.placed[i] else ""
    figures = f"{begun}task loss {_loss(item.loss[i])}"
    told = (
        f"{begun}after {item.sample_size} training steps with {item.changes[i]} the task loss is "
        f"{_loss(item.loss[i])}, and {_loss(item.loss_without[i])} without that change "
        f"({_loss(item.loss_before)} before)"
    )
    if codes:
        figures += f", perplexity {item.perplexity[i]:.3g}"
        told += f"; the perplexity is {item.perplexity[i]:.3g}, and {item.perplexity_without[i]:.3g} without"
    return Effect(
        removal=removal,
        verdict=verdict,
        gain=gain,
        factor=factor,
        change=item.changes[i],
        figures=figures,
        told=told,
    )


def _loss(value: float) -> str:
    return "not finite" if value >= NOT_FINITE else f"{value:.3g}"
