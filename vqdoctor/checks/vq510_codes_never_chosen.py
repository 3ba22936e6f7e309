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
Adam keeps a mean gradient as well, which fades sooner. The ratio of the two tells how many updates ago a
code had its last gradient: at most 70 for codes in use, and over 500 for others, in 24 codebooks whose use
was known. Where hardly any code lies between, those without a gradient in the last 400 updates count as left
out. In 93 other codebooks the perplexity that data measured was never above the codes that are left, and the
codes of the last 100 updates were those that data found, up to two, in all but five (a learning rate far too
high). How large a moment is tells no perplexity: of 24 such estimates six were off by more than their margin.
The perplexity lies between 1 and the number of codes with a gradient; where even that is under what VQ501
asks for, the codebook has collapsed for certain. After a short training the codes that were missed by
chance are allowed for, up to a share that all choices would miss by a chance of one in a million. SGD with
momentum and Lion keep a mean gradient, Adagrad a sum, Adafactor a mean square of each row: all are 0 in a
row that never had one. Weight decay inside Adam, as `torch.optim.Adam(weight_decay=…)` has it, gives every
code a gradient and hides this, and so do losses that reach all codes at once, such as an entropy or an
orthogonality term.

## Remedy
Data-driven initialisation before the first step keeps most codes from it. An optimizer keeps no counts, so a
training loop has to count the choices itself. Clear the optimizer's moments of the rows that are replaced.

## References
- Dhariwal et al. 2020, Jukebox, arXiv:2005.00341: random restarts of codes whose usage falls
- lucidrains/vector-quantize-pytorch#47: a learnable codebook whose codes do not move
"""

from vqdoctor.checks import _usage
from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._words import Problems, figure, if_known, measured, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import OptimizerMemory, TrainingRecord, Usage, WeightDecay
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity

GROWS = 2.0
"""Largest ratio of the codes of 400 updates and of 100 where the latter are those in use: with a few vectors
in each update, evenly used codes show 3.9 times as many."""


class Limits(CheckLimits):
    """When codes count as left out."""

    between: float = limit(
        0.1,
        "Most codes whose last gradient is 100 to 400 updates old, over those where it is older. Codes that "
        "are chosen once in 3,000 updates would make it a tenth, and rarer ones are of no use to any model.",
    )

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
    if memory.codebook_untouched_rows is None:
        raise CannotJudge("the optimizer keeps no second moment of each code")
    if memory.codebook_untouched_rows == decay.sample_size:
        raise CannotJudge("the optimizer remembers no gradient of any code, so the usage is unknown")
    if not decay.updates:
        raise CannotJudge("the number of updates is not known, or no update was made")
    most: float | None
    codes, lately = decay.sample_size, _unchosen_lately(memory, decay.sample_size, limits)
    if lately is not None:
        unchosen, when, most = lately, "of the last 400 updates", float(codes - lately)
    else:
        unchosen, when, most = memory.codebook_untouched_rows, f"({decay.updates:,} updates)", None
    if unchosen > limits.untouched * codes:
        most = most if most is not None else _most_perplexity(unchosen, codes, decay.updates, record, limits)
        yield _left_out(unchosen, when, most, decay, limits)


def _unchosen_lately(memory: OptimizerMemory, codes: int, limits: Limits) -> int | None:
    """Return how many codes had no gradient for 400 updates, where these are told apart from rare ones."""
    if not memory.recent_codes or memory.recent_codes_high is None:  # none: they are trained no longer
        return None
    unchosen = codes - memory.recent_codes_high
    between = memory.recent_codes_high - memory.recent_codes
    grows = memory.recent_codes_high > GROWS * memory.recent_codes  # a few vectors in each update
    return unchosen if between <= limits.between * unchosen and not grows else None


def _most_perplexity(
    unchosen: int, codes: int, updates: int, record: TrainingRecord | None, limits: Limits
) -> float:
    """Return the largest perplexity: few choices may have missed a code, and leave a bound that is wider."""
    batch = record.batch_size if record is not None and record.batch_size is not None else 1
    if updates * batch >= limits.choices * codes:
        return float(codes - unchosen)
    most = _usage.most_perplexity(codes - unchosen, codes, updates * batch)
    if most >= _usage.least_perplexity(codes):
        raise CannotJudge(
            f"{updates:,} updates of {batch:,} samples are too few for {codes:,} codes to be chosen"
        )
    return most


def _left_out(unchosen: int, when: str, most: float, decay: WeightDecay, limits: Limits) -> Problem:
    codes, bar = decay.sample_size, _usage.least_perplexity(decay.sample_size)
    collapsed = most < bar
    bound = f", so the perplexity is at most {figure(most)}, of at least {figure(bar)} expected" * collapsed
    return problem(
        Severity.ERROR if collapsed else Severity.WARNING,
        f"The optimizer remembers no gradient {when} for {unchosen:,} of {codes:,} codes: no vector chooses "
        f"them{bound}.",
        measured("untouched_share", unchosen / codes, limits.untouched),
        measured("perplexity_high", most, bar, unit="codes"),
        if_known("updates", decay.updates),
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
        fires(
            "eight codes in use, the others had a gradient long ago",
            _MEMORY.replace(recent_codes=8, recent_codes_high=8),
            WeightDecay.healthy(),
        ),
        passes(
            "many rare codes",
            _MEMORY.replace(recent_codes=60, recent_codes_high=100),
            WeightDecay.healthy(),
            _RECORD,
        ),
        passes("a few codes left out", _MEMORY, WeightDecay.healthy(), _RECORD),
    ),
    doc=__doc__,
)
