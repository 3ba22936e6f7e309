"""The first training step after loading throws the codebook away.

## Why it matters
A layer that initialises itself from the first batch must remember that it has done so. Where that
flag is a plain attribute, and not a buffer, it is lost with the process: after loading, the first
training step initialises again, over the trained codebook. Every index means something else, the
decoder has to learn anew, and usage falls off a cliff at each resume.

## How to read it
The checkpoint is loaded, and a copy is run forward in train mode without any optimizer. The number is
the median distance that a code in use travels, over the median distance of codes from their mean: 1.4
where each is replaced by another one. An EMA moves codes too (measured: 0.001 to 0.07), and moves them
as far in the passes after the first. So the check fires where the first pass moves them over half
that distance, and no later one does. A file that was saved before the codebook was initialised is
judged by VQ306, and one whose codes differ from their EMA sums by VQ303: there the first pass moves them
back.

## Remedy
A plain attribute is lost with the process; a buffer is part of the state dict. Load old checkpoints by
setting the flag by hand, once. `load_state_dict(strict=False)` passes over a flag that the file lacks,
so look at what it returns.

## References
- lucidrains/vector-quantize-pytorch: `initted` is a buffer
- lucidrains/vector-quantize-pytorch#102: k-means initialisation of a codebook that was loaded
"""

from vqdoctor.checks._words import Problems, error, figure, measured
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import EvalForward, Initialisation, TrainForward


class Limits(CheckLimits):
    """When the codebook counts as thrown away."""

    first_move: float = limit(
        0.5,
        "Longest median way of a code in the first pass, over the codes' median distance from their mean. "
        "Trained EMA codebooks measured up to 0.07, a second initialisation 1.4 to 1.7. Where later passes "
        "move a code as far, no pass is a second initialisation.",
    )
    later_share: float = limit(
        0.5,
        "Largest share of that move which later passes may repeat. A layer that moves as far every time "
        "replaces its codes, and has not forgotten that it was initialised.",
    )


def evaluate(
    forward: TrainForward, start: Initialisation | None, in_eval: EvalForward | None, limits: Limits
) -> Problems:
    """Compare the first pass with its limit and with the later passes."""
    if start is not None and start.flag is False:
        raise CannotJudge("the file says itself that the codebook is still to be initialised")
    if start is not None and start.counts_written is False and forward.writes_counts:
        raise CannotJudge("the EMA was never updated before, so its first update may move the codes far")
    first, later = forward.first_moved, forward.later_moved
    if first > limits.first_move and later <= min(limits.later_share * first, limits.first_move):
        yield error(
            "The first train-mode pass after loading moves a typical code by "
            f"{figure(first)} of the codebook's radius, and the passes after it by {figure(later)}: the "
            "layer initialises itself again over what was trained.",
            measured("first_moved", first, limits.first_move),
            measured("later_moved", later),
            # an eval pass, too, finds the layer without its flag, and initialises it: once
            explains=("VQ307",) if in_eval is not None and in_eval.codebook and not in_eval.again else (),
        )


CHECK = Check(
    code="VQ305",
    name="init-flag-not-saved",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="save-init-flag",
        how="Keep the flag of the data initialisation in a buffer, and set it for checkpoints that lack it.",
        code='vq.register_buffer("initted", torch.tensor(False))   # in __init__\n'
        "vq.initted.fill_(True)   # where the codebook has been initialised",
    ),
    explained_by=("VQ901", "VQ309", "VQ310", "VQ103", "VQ302", "VQ306", "VQ311"),
    meaningless_after=("VQ303",),
    examples=(
        fires(
            "k-means runs again, in an eval pass as well",
            TrainForward.healthy(first_moved=1.31),
            EvalForward.healthy(changed=("vq.embed", "vq.initted"), changed_count=2, codebook=True),
        ),
        fires("k-means runs again", TrainForward.healthy(first_moved=1.31), Initialisation.healthy()),
        passes("an EMA at work", TrainForward.healthy(), Initialisation.healthy()),
        passes(
            "codes that are replaced at every step",
            TrainForward.healthy(first_moved=1.2, later_moved=1.1),
            Initialisation.healthy(),
        ),
    ),
    doc=__doc__,
)
