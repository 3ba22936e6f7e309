"""Both an EMA and an optimizer write the codebook.

## Why it matters
An EMA sets every code to its sum over its count, from values of its own: whatever the optimizer did to
the code since is gone. Any loss on the codes (the codebook term, orthogonality, diversity) then has no
effect but its cost, and with a large learning rate the codes that the encoder sees jump back and forth.

## How to read it
With a model: the codes that get a gradient are moved a little on a copy, and a train-mode forward pass
follows. Kept 1: only the optimizer writes. Kept 0: the forward pass overwrites it. Layers that only
replace dead codes in the forward pass keep 0.99 and more. A gradient at a codebook that the
task's own optimizer does not hold is harmless.
A forward pass that puts a new parameter in the old one's place is a note: an EMA does not mind, but the
optimizer that was built before keeps the old object, and trains a parameter that the model no longer uses.
Without a model: the optimizer has a state for the codebook, and yet the codebook equals the EMA's sums
over its counts, up to the one step since.

## Remedy
With an EMA the codebook is a buffer, or requires no gradient. With an optimizer there is no EMA: in
vector-quantize-pytorch `ema_update=False, learnable_codebook=True`. A loss on the codes, such as an
orthogonality or diversity term, needs the optimizer. Assigning a new `nn.Parameter` in the forward pass
cuts the optimizer's hold as well: write into the old one, `weight.data.copy_(codes)`.

## References
- lucidrains/vector-quantize-pytorch#223: an orthogonality loss on a codebook that an EMA overwrites
- bytedance/1d-tokenizer#89: EMA and optimizer together, the VQ loss above 10
- zalandoresearch/pytorch-vq-vae: the EMA assigns a new nn.Parameter in every forward pass
"""

from vqdoctor.checks._renewed import replaces
from vqdoctor.checks._words import Problems, figure, measured, percent, problem, warning
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodebookWriters, CodeExpiry, EmaState, LiveReplacement, OptimizerMemory
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """When the forward pass counts as a second writer."""

    kept: float = limit(
        0.9,
        "Least share of a move of the codes that must be left after a forward pass. Without an EMA 0.99 to 1 "
        "was measured; an EMA from sums leaves 0, one that starts from the code itself its decay times that.",
    )
    disagreement: float = limit(
        0.01,
        "Largest median of |E - S/c| / |E| at which a file's codebook counts as written by its EMA. With "
        "both writing, one step of Adam since then left 0 to 0.01 (0.07 at a learning rate of 0.003); "
        "beside a codebook that an optimizer alone writes, EMA statistics measured 0.013 to 0.2.",
    )


def evaluate(
    writers: CodebookWriters | None,
    memory: OptimizerMemory | None,
    ema: EmaState | None,
    expiry: CodeExpiry | None,
    live: LiveReplacement | None,
    limits: Limits,
) -> Problems:
    """Ask the live model; only where there is none, the optimizer and the EMA in the file."""
    if writers is not None and replaces(expiry, live):
        raise CannotJudge("training passes replace codes in use, so a lost change shows no EMA")
    if writers is not None:
        yield from _live(writers, limits)
    elif memory is None or ema is None or ema.sums_disagreement is None or ema.never_written:
        raise CannotJudge("the file has no optimizer state, or no EMA sums that were ever written")
    elif memory.codebook_has_state and ema.sums_disagreement < limits.disagreement:
        yield warning(
            "The optimizer has a state for the codebook, yet the codes are within "
            f"{percent(ema.sums_disagreement)} of the EMA's sums over counts: both write them, the EMA last.",
            measured("disagreement", ema.sums_disagreement, limits.disagreement),
            confidence=Confidence.MEDIUM,
            decide_with="--data batch.npz",
        )


def _live(writers: CodebookWriters, limits: Limits) -> Problems:
    if writers.kept is not None and writers.listed is not False and writers.kept < limits.kept:
        yield warning(
            f"A train-mode forward pass leaves {percent(max(writers.kept, 0.0))} of an "
            f"optimizer's change to the {writers.sample_size} codes with a gradient: an EMA writes them too.",
            measured("kept", writers.kept, limits.kept),
            measured("codebook_gradient", writers.gradient or 0.0),
            confidence=Confidence.HIGH if writers.listed else Confidence.MEDIUM,
        )
    elif writers.replaced and (writers.gradient or writers.listed):
        gradient = writers.gradient or 0.0
        yield problem(
            Severity.WARNING if gradient else Severity.NOTE,
            "Every forward pass puts a new parameter in the codebook's place, so the optimizer holds "
            f"a parameter that the model no longer uses (gradient at the codebook {figure(gradient)}).",
            measured("codebook_gradient", gradient),
        )


CHECK = Check(
    code="VQ104",
    name="two-writers",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="one-writer",
        how="Let either the EMA or the optimizer write the codebook, and take it from the other.",
        code="parameter.requires_grad_(False)   # the codebook's: the EMA writes it",
        names=("parameter",),
    ),
    examples=(
        fires("a loss on an EMA's codes", CodebookWriters.healthy(gradient=5.8, kept=0.0, sample_size=16)),
        fires(
            "a bare file: optimizer state, and codes that equal the EMA's",
            OptimizerMemory.healthy(codebook_listed=True, codebook_has_state=True),
            EmaState.healthy(sums_disagreement=0.004),
        ),
        fires(
            "a parameter that is replaced in every forward pass, held by the optimizer",
            CodebookWriters.healthy(listed=True, replaced=True),
        ),
        passes("an EMA alone", CodebookWriters.healthy()),
        passes(
            "optimizer only", CodebookWriters.healthy(gradient=0.12, listed=True, kept=1.0, sample_size=231)
        ),
        passes(
            "a gradient reaches an EMA's codebook, which no optimizer holds",
            CodebookWriters.healthy(gradient=0.12, listed=False, kept=0.0, sample_size=231),
        ),
        passes(
            "a bare file: EMA statistics beside a codebook that the optimizer writes",
            OptimizerMemory.healthy(codebook_listed=True, codebook_has_state=True),
            EmaState.healthy(sums_disagreement=0.12),
        ),
    ),
    doc=__doc__,
)
