"""The optimizer remembers no gradient for most of the codes.

## Why it matters
A codebook that an optimizer trains moves only the codes that are chosen. A code that lies where no vector
comes gets no gradient, stays there, and is never chosen: it is dead from the start, and more training
leaves it so.

## How to read it
Adam and its kin keep the square of every gradient. A row of the codebook in which all of these are exactly 0
has had no gradient since the optimizer's state began, or for so long that it is forgotten (85,000 steps with
beta2 0.999). The loss of the codes reaches every code that is chosen, so such a code was not. It is only
judged where the usage is unknown, as in a bare file without EMA counts, and where the codes were chosen often
enough: each update counts as one vector, or as the recorded batch size, which is too few in any model.
The perplexity lies between 1 and the number of codes with a gradient; where even that is under what VQ501
asks for, the codebook has collapsed for certain. SGD with momentum and Lion keep a mean gradient, Adagrad a
sum, Adafactor a mean square of each row: all are 0 in a row that never had one. Weight decay inside Adam,
as `torch.optim.Adam(weight_decay=…)` has it, gives every code a gradient and hides this, and so do losses
that reach all codes at once, such as an entropy or an orthogonality term.

## Remedy
Data-driven initialisation before the first step keeps most codes from it. An optimizer keeps no counts, so a
training loop has to count the choices itself. Clear the optimizer's moments of the rows that are replaced.

## References
- Dhariwal et al. 2020, Jukebox, arXiv:2005.00341: random restarts of codes whose usage falls
- lucidrains/vector-quantize-pytorch#47: a learnable codebook whose codes do not move
"""

from vqdoctor.checks import _usage
from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._words import Problems, figure, measured, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import OptimizerMemory, TrainingRecord, Usage, WeightDecay
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """When codes count as left out."""

    untouched: float = limit(
        0.6,
        "Largest share of the codes without a remembered gradient: the share of dead codes from which VQ502 "
        "warns. A code without any choice is dead by that measure too.",
    )
    choices: float = limit(
        float(_usage.PLENTY),
        "Least choices per code, on average, for a code without one to be judged. Even with a tenth of its "
        "fair share, a code is then left out in one training of five only.",
    )


def evaluate(
    memory: OptimizerMemory,
    decay: WeightDecay,
    record: TrainingRecord | None,
    usage: Usage | None,
    limits: Limits,
) -> Problems:
    """Count the rows without a second moment, where the usage is not known anyway."""
    if usage is not None:
        raise CannotJudge("the usage is known, and is judged by VQ501 and VQ502")
    codes, untouched = decay.sample_size, memory.codebook_untouched_rows
    if untouched is None:
        raise CannotJudge("the optimizer keeps no second moment of each code")
    if untouched == codes:
        raise CannotJudge("the optimizer remembers no gradient of any code, so the usage is unknown")
    if decay.updates is None:
        raise CannotJudge("the number of updates is not known")
    batch = record.batch_size if record is not None and record.batch_size is not None else 1
    if decay.updates * batch < limits.choices * codes:
        raise CannotJudge(
            f"{decay.updates:,} updates of {batch:,} samples are too few for {codes:,} codes to be chosen"
        )
    if untouched > limits.untouched * codes:
        most, bar = codes - untouched, _usage.least_perplexity(codes)
        collapsed = most < bar
        bound = f", so the perplexity is at most {most:,}, of at least {figure(bar)} expected" * collapsed
        yield problem(
            Severity.ERROR if collapsed else Severity.WARNING,
            f"The optimizer remembers no gradient for {untouched:,} of {codes:,} codes "
            f"({decay.updates:,} updates): no vector chooses them{bound}.",
            measured("untouched_share", untouched / codes, limits.untouched),
            measured("perplexity_high", most, bar, unit="codes"),
            measured("updates", decay.updates),
            confidence=Confidence.MEDIUM,
            decide_with="--data batch.npz",
        )


_MEMORY = OptimizerMemory.healthy(codebook_listed=True, codebook_has_state=True, codebook_untouched_rows=12)
_RECORD = TrainingRecord.healthy(layer=None)

CHECK = Check(
    code="VQ510",
    name="codes-never-chosen",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="replace-unchosen",
        how="Count the choices of every code while training, and give those without any an encoder output.",
        code="chosen += torch.bincount(indices.flatten(), minlength=len(codebook))\n"
        "never = chosen == 0   # after an epoch\n"
        "new = z_e[torch.randperm(len(z_e))[: int(never.sum())]]\n"
        "codebook.data[never] = new; chosen.zero_()",
        names=("codebook",),
    ),
    explained_by=(*COLLAPSE, "VQ503"),
    examples=(
        fires(
            "200 of 256 codes without a gradient after 2,640 updates",
            _MEMORY.replace(codebook_untouched_rows=200),
            WeightDecay.healthy(),
            _RECORD,
        ),
        fires(
            "collapsed to nine codes",
            _MEMORY.replace(codebook_untouched_rows=247),
            WeightDecay.healthy(),
            _RECORD,
        ),
        passes("a few codes left out", _MEMORY, WeightDecay.healthy(), _RECORD),
    ),
    doc=__doc__,
)
