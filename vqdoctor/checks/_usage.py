"""Usage in the checks: the power of a sample, and the perplexity of a working codebook."""

import math

from vqdoctor.checks._words import figure, percent
from vqdoctor.core.evidence import TaskMetrics, Usage

EMA_USAGE = Usage.healthy(
    source="checkpoint", sample_size=1_024, perplexity=213.0, perplexity_low=213.0, perplexity_high=213.0,
    plug_in_perplexity=213.0, estimator="ema-counts", unseen_mass=0.0, groups=None, effective_size=None,
    window=199.0,
)  # fmt: skip
COLLAPSED_USAGE = Usage.healthy(
    used=1, active=1, share=1 / 256, perplexity=1.0, perplexity_low=1.0, perplexity_high=1.0,
    plug_in_perplexity=1.0, max_share=1.0, unseen_mass=0.0,
)  # fmt: skip
IMPLICIT_USAGE = Usage.healthy(
    num_codes=200, used=96, active=70, expected_used=200.0, expected_active=200.0, share=0.48,
    perplexity=52.0, perplexity_low=51.0, perplexity_high=53.0, plug_in_perplexity=52.0, implicit=True,
)  # fmt: skip

CODES = 50.0
SHARE = 0.2
FLOOR = 0.05
BITS = 0.5
ACTIVE_WARNING = 0.4
ACTIVE_ERROR = 0.3
PLENTY = 16
"""Vectors per code from which perplexity is known to about 3 %, whatever the usage looks like."""


def effective_vectors(usage: Usage) -> float:
    """Return how many independent vectors the usage rests on.

    The vectors of one image or clip repeat each other, so the probe's effective size comes first;
    EMA counts sum to one batch but remember `window` of them.
    """
    if usage.effective_size is not None:
        return usage.effective_size
    return usage.sample_size * (usage.window or 1.0)


def uniform_used(num_codes: int, vectors: float) -> float:
    """Return how many codes uniform usage would have chosen: K (1 - (1 - 1/K)^N)."""
    return float(num_codes * (1 - (1 - 1 / num_codes) ** vectors))


def least_perplexity(
    num_codes: int,
    codes: float = CODES,
    share: float = SHARE,
    floor: float = FLOOR,
    *,
    bits: float | None = None,
) -> float:
    """Return the least perplexity of a working codebook: max(min(codes, share K), floor K).

    With `bits`, for a layer without a codebook, K to the power of `bits` takes the place of floor K.
    """
    least = floor * num_codes if bits is None else num_codes ** min(bits, 1.0)
    return max(min(codes, share * num_codes), least)


BY_CHANCE = 1e-6
"""Chance that a bound on the usage of codes which no sample chose is wrong."""


def most_perplexity(chosen: int, num_codes: int, choices: int) -> float:
    """Return the largest perplexity of K codes of which n independent choices hit only a few.

    All n choices fall into some set of c codes that has at most 1 - m of the usage with a chance of at most
    (K over c) (1 - m)^n, the sum over all such sets, which bounds m. The entropy is largest where the c codes
    share 1 - m evenly, and the others m.

    Args:
        chosen: how many codes were hit: c, at least 1.
        num_codes: K.
        choices: n.
    """
    others = num_codes - chosen
    sets = math.lgamma(num_codes + 1) - math.lgamma(chosen + 1) - math.lgamma(others + 1)
    missed = min(1 - math.exp((math.log(BY_CHANCE) - sets) / choices), others / num_codes)
    parts = ((1 - missed, chosen), (missed, others))
    return math.exp(sum(share * math.log(codes / share) for share, codes in parts if share > 0))


FEWER_CODES = "fewer-codes"
"""The advice for a task that needs few codes, which VQ501 gives."""
NEAR_CLASSES = 0.5
"""A pure classifier has enough codes at this many times its classes: half a code a class still tells
them apart over several positions. A model of 10 classes measured perplexity 14 at accuracy 0.90, and one
that had collapsed to 3 codes 0.79."""
AS_WITHOUT = 0.02
"""Accuracy that a codebook may cost: the 95 % interval of an accuracy of 0.95 on 400 samples is as wide."""
ABOVE_CHANCE = 0.5
"""Share of the way from chance to perfect accuracy from which the codes are known to carry the classes."""


LEFT = 0.02
"""Largest share of the loss with one mean code that is left to a model whose codes do all of its task. A
model of five waveforms, with a code for each, measured 0.007; collapsed ones 0.21 to 1."""
LEFT_OF_LEVELS = 0.1
"""The same for a layer without a codebook, of which a code that is never used costs nothing. A model of a
pendulum's two angles, which needs 55 of 512 cells, measured 0.05; collapsed ones the same as above."""
SLACK = 1.05
"""Largest ratio of the losses with the codes and with z_e in their place at which the codes lose nothing.
That model measured 1.02; one with 12 codes out of reach, which was left with 0.014 of the loss, 1.4."""


def enough_for_task(usage: Usage, task: TaskMetrics | None) -> str:
    """Return how the few codes in use are seen to be enough for the task; "" where they are not."""
    if task is None:
        return ""
    if _enough_for_classes(usage, task):
        accuracy, without = percent(task.accuracy or 0.0), percent(task.bypass_accuracy or 0.0)
        return f"a pure classifier of {task.classes} classes: accuracy {accuracy}, and {without} without VQ"
    if task.accuracy is not None or task.bypass_loss is None:
        return ""
    left = LEFT_OF_LEVELS if usage.implicit else LEFT
    if 0 < task.loss <= min(left * task.mean_code_loss, SLACK * task.bypass_loss):
        loss, without, one = map(figure, (task.loss, task.bypass_loss, task.mean_code_loss))
        return f"this task: its loss is {loss}, and {without} without VQ, where one mean code leaves {one}"
    return ""


def _enough_for_classes(usage: Usage, task: TaskMetrics) -> bool:
    """Whether the codes are about as many as a pure classifier needs, and carry the classes.

    The loss of a pure classifier asks for one code a class, and rewards no other.
    """
    if task.classes is None or task.accuracy is None or task.bypass_accuracy is None:
        return False
    chance = task.chance_accuracy or 1 / task.classes
    carries = task.accuracy >= chance + ABOVE_CHANCE * (1 - chance)
    as_without = task.accuracy >= task.bypass_accuracy - AS_WITHOUT
    uses_codes = task.accuracy > task.mean_code_accuracy + AS_WITHOUT if task.mean_code_accuracy else True
    return carries and as_without and uses_codes and usage.perplexity >= NEAR_CLASSES * task.classes


PADDED_USAGE = Usage.healthy(
    num_codes=128, sample_size=12_704, used=120, active=101, expected_used=128.0, expected_active=128.0,
    share=0.94, perplexity=3.87, perplexity_low=3.77, perplexity_high=3.98, plug_in_perplexity=3.85,
    max_share=0.812, rest_perplexity=100.0,
)  # fmt: skip


def one_stands_out(usage: Usage) -> bool:
    """Whether one code alone makes the usage poor: the others are used as those of a working layer."""
    rest = usage.rest_perplexity
    return rest is not None and usage.perplexity < _least(usage) <= rest


def few(usage: Usage) -> bool:
    """Whether the estimate of the perplexity is under the least that a working layer has."""
    return usage.perplexity < _least(usage) and not one_stands_out(usage)


def _least(usage: Usage) -> float:
    return least_perplexity(usage.num_codes, bits=BITS if usage.implicit else None)


def active_share(usage: Usage) -> float:
    """Return active codes over those that uniform usage would have made active on this sample."""
    return usage.active / usage.expected_active if usage.expected_active else 1.0


def poor(usage: Usage) -> bool:
    """Return whether the usage breaks a default limit of the usage checks, as far as the sample can tell."""
    enough = effective_vectors(usage) >= usage.num_codes
    collapsed = usage.perplexity_high < _least(usage) and not one_stands_out(usage)
    dead = not usage.implicit and active_share(usage) < ACTIVE_WARNING
    return enough and (collapsed or dead)
