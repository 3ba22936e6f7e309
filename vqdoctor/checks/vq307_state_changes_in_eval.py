"""An eval-mode forward pass changes the model.

## Why it matters
Where the EMA, the k-means initialisation or the replacement of codes is not guarded by
`if self.training`, every evaluation trains the codebook: on validation data, in whatever order it
comes, and again at inference. Two evaluations of one file disagree, and the validation figures are
no longer honest.

## How to read it
A copy is run forward once in eval mode without gradients, and all parameters and buffers are compared
with the original's. A changed codebook is an error. Where only counts change, as in BEiT-2, which
counts usage in eval mode too, it is a note: the outputs are not affected, but the counts mix
training and evaluation data. BatchNorm's statistics do not change in eval mode. A residual level that
the training left out, and that its first pass therefore initialises, is judged by VQ506.

## Remedy
`model.eval()` switches only `self.training`: an EMA, a k-means initialisation or a
replacement of codes in the forward pass has to ask for it, and `torch.no_grad()` does not stop a write
to a buffer. Evaluate under `model.eval()`, and put the model back into train mode afterwards.

## References
- lucidrains/vector-quantize-pytorch#163: expired codes replaced in eval mode
- microsoft/unilm, beit2/norm_ema_quantizer.py: cluster_size is updated in eval mode
"""

from vqdoctor.checks._words import Problems, listed, measured, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import EvalForward, LevelUse
from vqdoctor.core.levels import Severity


class Limits(CheckLimits):
    """How much may change."""

    changed: float = limit(
        0.0,
        "Tensors that an evaluation may change. A forward pass in eval mode has no reason to write anything "
        "that is saved, so any change is reported.",
    )


def evaluate(forward: EvalForward, level: LevelUse | None, limits: Limits) -> Problems:
    """Count what changed; a codebook among it makes it an error."""
    if forward.changed_count <= limits.changed:
        return
    if level is not None and level.written is False and level.others_written:
        raise CannotJudge("the training leaves this level out, so its first pass initialises it (VQ506)")
    names = listed([name.rpartition(".")[2] for name in forward.changed], forward.changed_count)
    home = f" of {forward.layer}" if forward.layer else ""
    effect = "evaluation trains the codebook" if forward.codebook else "they mix training and evaluation data"
    yield problem(
        Severity.ERROR if forward.codebook else Severity.NOTE,
        f"One forward pass in eval mode changes {forward.changed_count} of {forward.sample_size} "
        f"tensors{home} ({names}): {effect}.",
        measured("changed", forward.changed_count, limits.changed, unit="tensors"),
    )


CHECK = Check(
    code="VQ307",
    name="state-changes-in-eval",
    evaluate=evaluate,
    limits=Limits(),
    scope="both",
    advice=Advice(
        name="guard-by-training",
        how="Update the codebook, its EMA counts and sums, and its flags in train mode only.",
        code="if vq.training:   # self.training, in the layer's forward\n    counts.lerp_(n, 1 - decay)",
        names=("vq", "counts"),
    ),
    explained_by=("VQ901", "VQ306", "VQ311"),
    examples=(
        fires(
            "the EMA runs in eval mode",
            EvalForward.healthy(
                changed=("vq.embedding", "vq.ema_cluster_size", "vq.ema_embedding_sum"),
                changed_count=3,
                codebook=True,
            ),
        ),
        fires("BEiT-2: only the counts", EvalForward.healthy(changed=("vq.cluster_size",), changed_count=1)),
        passes("nothing changes", EvalForward.healthy()),
        passes("nothing changes around the layer", EvalForward.healthy(layer=None)),
    ),
    doc=__doc__,
)
