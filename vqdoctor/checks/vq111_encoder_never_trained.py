"""The encoder was never trained: its weights still are as the constructor drew them, or nothing moves them.

## Why it matters
An encoder that is missing from the optimizer, or frozen before it learned anything, stays a random
projection. The codebook and the decoder adapt to it, and usage looks well, so that only the task shows what
is lost: a table of 30 columns was rebuilt with 1.6 times the error, and gestures were recognised in 91 % of
the cases instead of 97 %.

## How to read it
Torch draws the weights of linear and convolutional layers within a bound, and training moves some of them
across it. All matrices before the VQ layer within the bound, distributed as drawn, and trained matrices
behind it: the encoder never moved. Live, autograd says what is before, also of frozen parameters; in a file
it is the model's order. Where the weights were moved and no optimizer lists them, they may be a pretrained
encoder that is frozen on purpose: a note. A model whose matrices all are as drawn was not trained at all
(VQ306). Where the optimizer remembers gradients of the encoder, or lists it and remembers none at all (plain
SGD), the training may have hardly begun, and the check does not judge. Weights that were drawn otherwise
(from a normal distribution, say) are not recognised.

## Remedy
train-the-encoder: give the optimizer all parameters of the model, or load the encoder that was meant.

## References
- He et al. 2015, arXiv:1502.01852, and Glorot & Bengio 2010: the two bounds
- torch.nn.Linear and torch.nn.Conv2d, "Variables": weights from U(±1/sqrt(inputs))
"""

from vqdoctor.checks._words import Problems, if_known, measured, note, percent, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import EncoderStart, OptimizerMemory
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """When an encoder counts as drawn, a decoder as trained, and an encoder as left out."""

    drawn: float = limit(
        0.9, "Least share of the weights before the layer that must be as drawn: nearly all. A convention."
    )
    trained: float = limit(
        0.5,
        "Largest share of the weights after the layer that may be as drawn where a model counts as trained.",
    )
    listed: float = limit(
        0.1,
        "Largest share of the encoder that the optimizer lists where it counts as left out. A convention.",
    )


def evaluate(start: EncoderStart, memory: OptimizerMemory | None, limits: Limits) -> Problems:
    """Judge the weights themselves; what the optimizer lists says why."""
    remembered = None if memory is None else memory.before_with_state
    learns = start.listed if remembered is None else remembered
    left_out = start.listed is not None and start.listed <= limits.listed
    measurements = (
        measured("before_drawn", start.before_drawn, limits.drawn),
        measured("after_drawn", start.after_drawn, limits.trained),
        if_known("listed", start.listed, limits.listed),
    )
    if start.before_drawn >= limits.drawn and start.after_drawn <= limits.trained:
        if learns is not None and learns > limits.listed:
            raise CannotJudge(
                f"the optimizer moves {percent(learns)} of the weights before the VQ layer, which still are "
                "near their start: the training has hardly begun"
            )
        why = ": the optimizer does not list them" if left_out else ""
        live = start.source == "batch"
        yield problem(
            Severity.WARNING,
            f"{percent(start.before_drawn)} of the {start.before:,} weights before the VQ layer still are as "
            f"the constructor drew them, and those behind it were trained{why}.",
            *measurements,
            confidence=_confidence(start, live=live),
            decide_with="" if live else "--data batch.npz",
        )
    elif left_out and start.after_drawn <= limits.trained:
        yield note(
            f"The optimizer lists {percent(start.listed or 0.0)} of the weights before the VQ layer, so they "
            "do not learn, which is right where they were trained before.",
            *measurements,
        )


def _confidence(start: EncoderStart, *, live: bool) -> Confidence:
    if start.contradicted:
        return Confidence.LOW
    return Confidence.HIGH if live else Confidence.MEDIUM


CHECK = Check(
    code="VQ111",
    name="encoder-never-trained",
    evaluate=evaluate,
    limits=Limits(),
    scope="model",
    advice=Advice(
        name="train-the-encoder",
        how="Give the optimizer all parameters of the model, and freeze an encoder only once it is trained.",
        code="optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)",
    ),
    explained_by=("VQ901", "VQ101", "VQ102"),
    examples=(
        fires(
            "an encoder as the constructor drew it",
            EncoderStart.healthy(before_drawn=1.0),
            OptimizerMemory.healthy(layer=None, before_with_state=0.0),
        ),
        fires(
            "the same, left out of the task's optimizer",
            EncoderStart.healthy(source="batch", before_drawn=1.0, listed=0.0),
        ),
        fires("a pretrained encoder that is frozen", EncoderStart.healthy(listed=0.0)),
        passes("a model that was trained as a whole", EncoderStart.healthy()),
        passes(
            "a model that was not trained at all", EncoderStart.healthy(before_drawn=1.0, after_drawn=1.0)
        ),
    ),
    doc=__doc__,
)
