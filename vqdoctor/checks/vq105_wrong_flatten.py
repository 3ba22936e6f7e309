"""The feature map is cut into vectors, or put together again, along the wrong axis.

## Why it matters
A convolution stores its output channel after channel. Flattened by `view(-1, D)` without a `permute`, a
"vector" is then a strip of D neighbouring positions of one channel. The model still trains, and its
reconstruction can look right; but the codes stand for strips of smooth maps, which are all alike, so
few of them are used, and no code belongs to a position.

## How to read it
Inside the layer: codes chosen at random are put on the positions and shuffled. The layer's codes must be
shuffled alike, exactly; a wrong cut shuffles hardly any alike, and all of them when strips of memory are
shuffled in place of positions. Only both together are a finding: a layer that mixes positions on purpose
follows neither. Before the layer: single vectors of its input are traced back to the last convolution or
norm layer by their gradients; a strip of its memory in every vector is the missing permute. Behind the
lookup: the layer is given codes chosen at random, and has to put out each at its position. Where they lie in
strips of memory instead, one after the other, the way back has no permute: each position then gets numbers of
several codes, and the gradient of other positions.

## Remedy
`view` and `reshape` only count off memory, in which a feature map stores channel after channel;
`permute` alone changes which values form a vector. The way back needs it too: reshape to [B, H, W, D],
then permute. The codes that were learnt stand for strips of a channel, so train the codebook again
afterwards.

## References
- lucidrains/vector-quantize-pytorch#70: an example used view in place of permute
- rosinality/vq-vae-2-pytorch#28, zalandoresearch/pytorch-vq-vae#8: BCHW and BHWC confused
"""

from vqdoctor.checks._words import Problems, error, if_known, measured, percent
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import Flattening

AFTER = "permute-after-lookup"


class Limits(CheckLimits):
    """How well codes must follow their positions."""

    equal: float = limit(
        0.9,
        "Least share of the vectors whose code moves with its position. Right layers measured 1.0 whatever "
        "the library; rounding may turn a near tie. Wrong cuts measured 0.0.",
    )
    by_chance: float = limit(
        0.8,
        "Largest share that would agree with codes moved at random. Above it, nearly all codes are one, "
        "and a shuffle cannot tell anything.",
    )


def evaluate(cut: Flattening, limits: Limits) -> Problems:
    """Look before the layer, then inside it."""
    shares = (
        if_known("equal", cut.equal, limits.equal),
        if_known("equal_as_stored", cut.equal_as_stored),
        if_known("by_chance", cut.by_chance),
        measured("positions", float(cut.positions)),
    )
    if cut.input_runs:
        yield error(
            "The VQ layer's input is the encoder's channel-first output read without a permute: each of its "
            f"{cut.sample_size} vectors is a strip of one channel's positions.",
            *shares,
        )
        return
    if cut.equal is None or cut.by_chance is None:
        if cut.input_runs is None:
            raise CannotJudge("a sample has one position only, so nothing can be confused")
        return
    if cut.equal >= limits.equal:
        return
    if cut.by_chance > limits.by_chance:
        raise CannotJudge(f"{percent(cut.by_chance)} of the codes agree however the positions are shuffled")
    if cut.output_as_stored is not None and cut.output_as_stored >= limits.equal:
        yield error(
            f"{percent(cut.output_as_stored)} of the codes leave the VQ layer as strips of memory and not at "
            "their positions: behind the lookup they are viewed channel-first without a permute.",
            *shares,
            remedies=(AFTER,),
        )
        return
    if cut.equal_as_stored is None or cut.equal_as_stored < limits.equal:
        raise CannotJudge(
            f"the layer mixes positions: only {percent(cut.equal)} of the codes follow theirs, and the codes "
            "do not follow strips of memory either"
        )
    yield error(
        f"When positions are shuffled only {percent(cut.equal)} of the codes follow, but "
        f"{percent(cut.equal_as_stored)} follow strips of memory: the layer flattens without a permute.",
        *shares,
    )


CHECK = Check(
    code="VQ105",
    name="wrong-flatten",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="permute-before-flatten",
        how="Move the channels last before a feature map is flattened into vectors, and back afterwards.",
        code="vectors = z_e.permute(0, 2, 3, 1).reshape(-1, z_e.shape[1])",
        in_source=True,
    ),
    other_advice=(
        Advice(
            name=AFTER,
            how="Move the channels back behind the lookup, and train again.",
            code="z_q = codes.reshape(b, h, w, d).permute(0, 3, 1, 2)",
        ),
    ),
    examples=(
        fires("no permute back", Flattening.healthy(equal=0.0, equal_as_stored=0.04, output_as_stored=1.0)),
        fires("view, no permute", Flattening.healthy(equal=0.06, equal_as_stored=1.0, by_chance=0.06)),
        fires(
            "the encoder's output was viewed as [B, N, D] before the layer",
            Flattening.healthy(equal_as_stored=None, input_runs=True),
        ),
        passes("permuted first", Flattening.healthy()),
        passes(
            "one position, rightly permuted before the layer",
            Flattening.healthy(positions=1, equal=None, equal_as_stored=None, by_chance=None),
        ),
    ),
    doc=__doc__,
)
