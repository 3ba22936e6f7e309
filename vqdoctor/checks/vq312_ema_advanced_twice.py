"""One training step advances the EMA more than once with the same vectors.

## Why it matters
An EMA in the forward pass runs as often as the forward pass does. Gradient checkpointing runs it again in the
backward pass, and the second pass of a GAN's training runs it again on the same batch. The decay is then
applied twice for each step, so the EMA forgets faster than its setting says, and a rare code dies sooner: a
decay of 0.99 acts as 0.98, and a threshold of dead codes is met in half of the steps.

## How to read it
One training step of the task, its backward pass included, is watched on a copy. A call of the layer counts if
it changes the EMA counts; two calls are a finding only if both got the very same z_e. A layer that is called
for several inputs in a step, as for the scales of an image, advances once for each, and passes. A second pass
with other dropout has another z_e, and is not seen; neither is accumulation over several batches.

A single call may also apply the update twice. The counts before and after it, and the codes that it chose,
give the decay that it applied; where that is a power of the decay that the layer keeps, its exponent says how
often. A decay that changes from one pass to the next, as in a warm-up, is not judged.

## Remedy
Let the layer update its EMA in one pass of each step: run it outside of the part that is checkpointed, or put
it in eval mode for every further pass over a batch.

## References
- van den Oord et al. 2017, arXiv:1711.00937, appendix A.1: one update for each minibatch
- Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174: the pass runs again
"""

from vqdoctor.checks._words import Problems, figure, measured, warning
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import EmaAdvances


class Limits(CheckLimits):
    """How often the same vectors may advance the EMA."""

    times: float = limit(
        1.0,
        "Most updates of the EMA by the same z_e in one step. By its definition there is one for a batch.",
    )
    exponent: float = limit(
        0.1,
        "Farthest that the exponent may be from a whole number to count as that many updates. A layer "
        "that updates once measured 1.0000001 in single precision.",
    )


def evaluate(advances: EmaAdvances, limits: Limits) -> Problems:
    """Compare the updates of one step with one."""
    if advances.times > limits.times:
        yield warning(
            f"One training step advances the EMA {advances.times} times with the same vectors, and applies "
            f"its decay as often: the layer runs again, in a second pass or under checkpointing.",
            measured("times", advances.times, limits.times),
        )
    elif advances.applied is not None and advances.decay is not None:
        often = round(advances.applied)
        if often > limits.times and abs(advances.applied - often) <= limits.exponent:
            yield warning(
                f"One call of the layer applies its EMA update {often} times: its decay of "
                f"{figure(advances.decay)} acts as {figure(advances.decay**advances.applied)}.",
                measured("times", advances.applied, limits.times),
                measured("decay", advances.decay),
            )


CHECK = Check(
    code="VQ312",
    name="ema-advanced-twice",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="advance-ema-once",
        how="Run the VQ layer outside of the checkpointed part, and in eval mode in every further pass.",
        code="z_e = checkpoint(encoder, x, use_reentrant=False)\n"
        "z_q, indices, vq_loss = vq(z_e)   # in one pass of each step",
    ),
    examples=(
        fires("the layer is in a checkpointed part", EmaAdvances.healthy(times=2, sample_size=2)),
        fires("one call that updates twice", EmaAdvances.healthy(applied=2.0001)),
        passes("one pass", EmaAdvances.healthy()),
        passes("a decay between two powers", EmaAdvances.healthy(applied=2.4)),
        passes("a decay that warms up", EmaAdvances.healthy(applied=None)),
        passes("once for each of three scales", EmaAdvances.healthy(sample_size=3)),
    ),
    doc=__doc__,
)
