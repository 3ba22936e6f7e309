"""The codebook does not move: it gets neither a gradient nor an EMA update.

## Why it matters
A codebook that stays where it was initialised cannot follow the encoder. The encoder must come to the
few codes that happen to lie near, and the rest is dead from the first step.

## How to read it
With a model and data: after a backward pass of the whole loss, is there a gradient at the codebook, and
does a train-mode forward rewrite it (an EMA)? Neither is an error for a trainable codebook, and a
warning for a frozen one: SimVQ, random projections and VQGAN-LC freeze theirs on purpose. It is a note
where the codes are the means of their vectors, since then something moves them that this pass does not run,
as a callback, where an EMA has written them and has ended, and where z_e is fixed, as in a tokenizer of an
earlier stage. Frozen bits, as LFQ and BSQ store them, and frozen codes that logits choose need no training.
Where the layer's loss was never added to the task's, that is the cause (VQ205), and this check is skipped. So
it is where the optimizer remembers gradients of codes that no VQ loss trains (NSVQ), and the task's own have
died in the decoder.
Without a model: the optimizer lists the codebook but holds no state for it, and there are no EMA counts
that were ever written. An optimizer creates the state with the first gradient, so there was none. Where
it has a state for every other parameter and does not list the codebook, an embedding's weight, nothing
trains it: a warning, since codes may be frozen on purpose, and an error where data shows that the loss
has a gradient for it. A codebook with an EMA is rightly without optimizer state.
With both: the task's losses may reach the codebook where the training that saved the file did not. If the
optimizer remembers gradients of the encoder, lists the codebook and remembers none of it, then the training
lost the VQ loss's gradient on its way, as by `.item()` or `.detach()`. A file of `fix --retrain` in which an
EMA led the codes is no evidence of that: the training was vqdoctor's own.

## Remedy
Use either a loss whose gradient reaches the raw looked-up codes, with the codebook among the
optimizer's parameters, or an EMA; not both, since the EMA overwrites what the optimizer did. Codebooks
that are frozen on purpose (SimVQ, random projection) need neither. `fix --retrain` moves the codes by an EMA
of its own (codes-by-ema); a codebook that is computed from other tensors cannot take it.

## References
- showlab/Olaf-World#8: the codebook loss was computed on the straight-through output
- EdoardoBotta/RQ-VAE-Recommender#24: the codes were detached before the loss
- lucidrains/vector-quantize-pytorch#47, #84, #236: a learnable codebook without a gradient
"""

from functools import partial

from vqdoctor.checks import _harm, _levels
from vqdoctor.checks._words import Problems, error, figure, if_known, measured, percent, problem, warning
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import (
    CodebookGeometry,
    CodebookGradient,
    CodebookWriters,
    DataMatch,
    EmaState,
    LossPath,
    LossUse,
    OptimizerMemory,
    StartRows,
    TaskGradient,
)
from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Confidence, Severity

TRAIN, BY_EMA = "train-codebook", "codes-by-ema"
"""The remedies: lines for the source, and what a retraining does. Codes that are frozen on purpose stay."""


class Limits(CheckLimits):
    """When the codebook counts as unmoved."""

    gradient: float = limit(
        0.0,
        "Largest norm of the loss's gradient at the codebook that counts as none. A cut path gives "
        "exactly 0; a small gradient is still a gradient, whatever its unit.",
    )
    mean_gain: float = limit(
        0.1,
        "Share of the quantization error that moving the codes to the means of their vectors would take "
        "away, under which codes that seem frozen follow the data. Codes of an EMA or a codebook loss "
        "measured 0.01 to 0.04, frozen ones 0.2 to 0.7.",
    )
    behind: float = limit(
        0.2,
        "The same for codes that an EMA has written and writes no more: the least of the frozen ones above. "
        "A sound model whose EMA a plan had ended measured 0.11.",
    )
    disagreement: float = limit(
        0.01,
        "Largest disagreement of the codes and the EMA's sums over counts that shows who wrote them (VQ104).",
    )


_error, _warning = partial(error, remedies=(TRAIN, BY_EMA)), partial(warning, remedies=(TRAIN,))


def evaluate(
    gradient: CodebookGradient | None,
    memory: OptimizerMemory | None,
    ema: EmaState | None,
    use: LossUse | None,
    path: LossPath | None,
    writers: CodebookWriters | None,
    match: DataMatch | None,
    task: TaskGradient | None,
    geometry: CodebookGeometry | None,
    start: StartRows | None,
    limits: Limits,
) -> Problems:
    """Ask the live model beside the file's optimizer; without one, the optimizer and the EMA counts."""
    frozen = gradient is not None and not gradient.trainable
    if frozen and (_levels.are_corners(geometry) or (start is not None and start.by_logits)):
        return  # bits stay what they are, and logits choose codes wherever they lie
    _require_own_fault(gradient, memory, use, path, task)
    if gradient is not None:
        saved = memory is not None and (memory.left_out or (memory.unlisted and gradient.trainable))
        if memory is not None and _harm.lost(gradient, memory):
            yield _lost(gradient, memory, limits)
        elif saved or _is_unheld(gradient, memory, writers):
            yield from _left_out(
                gradient, match, ema, "saved with the model" if saved else "of the task", limits
            )
        else:
            yield from _live(gradient, match, ema, limits)
        return
    if ema is not None and not ema.never_written:
        return  # an EMA has moved it
    if memory is not None and memory.left_out and ema is not None:
        yield error(
            f"The optimizer has a state for all {memory.sample_size} parameters around the codebook but does "
            "not list it, and its EMA counts were never written: neither an optimizer nor an EMA moves its "
            f"{ema.sample_size} codes, so they stay where they were initialised.",
            measured("parameters_with_state", memory.sample_size),
            confidence=Confidence.MEDIUM,
            decide_with="--data batch.npz",
        )
        return
    if memory is not None and memory.left_out:
        yield _warning(
            f"The optimizer has a state for all {memory.sample_size} parameters around the codebook but does "
            "not list it, so its codes stay where they were initialised, which is right only for layers that "
            "are made so (random projection, another model's codes).",
            measured("parameters_with_state", memory.sample_size),
            confidence=Confidence.MEDIUM,
            decide_with="--data batch.npz",
        )
        return
    if memory is None or not memory.codebook_listed or memory.codebook_has_state is None:
        raise CannotJudge("the file shows no trainer of the codebook: no EMA counts, no optimizer entry")
    if memory.codebook_has_state is False and memory.sample_size > 0:
        yield _error(
            "The optimizer lists the codebook but has no state for it, as it has for "
            f"{memory.sample_size} other parameters: the codebook never got a gradient.",
            measured("parameters_with_state", memory.sample_size),
            confidence=Confidence.MEDIUM,
            decide_with="--data batch.npz",
        )


def _require_own_fault(
    gradient: CodebookGradient | None,
    memory: OptimizerMemory | None,
    use: LossUse | None,
    path: LossPath | None,
    task: TaskGradient | None,
) -> None:
    """Leave codes to the check that tells why no loss reaches them.

    Raises:
        CannotJudge: if there is one.
    """
    if use is not None and gradient is not None:
        unused = use.offered > 0 and use.used is False and not use.gradient
        if unused or (use.vq_weight is not None and use.vq_weight <= 0):
            raise CannotJudge("the VQ loss, which may move the codebook, is not in the loss (VQ205)")
    if path is not None and path.reported and path.alive is False and path.value and path.vq_weight != 0:
        raise CannotJudge("the VQ loss has no gradient at all, so it moves no codebook (VQ206)")
    remembered = memory is not None and memory.codebook_has_state
    if remembered and task is not None and task.at_output == 0 and (path is None or not path.value):
        raise CannotJudge(
            "the codes had gradients in training, and the task's is 0 along the path behind the layer, as "
            "behind units that are out of action"
        )


def _is_unheld(
    gradient: CodebookGradient, memory: OptimizerMemory | None, writers: CodebookWriters | None
) -> bool:
    """Whether the task's own optimizer leaves out a codebook that it alone could move.

    Codes for which the saved optimizer remembers gradients were moved, whatever the task builds.
    """
    if writers is None or writers.listed is not False or writers.replaced or not gradient.trainable:
        return False
    return memory is None or not memory.codebook_has_state


def _left_out(
    gradient: CodebookGradient, match: DataMatch | None, ema: EmaState | None, which: str, limits: Limits
) -> Problems:
    """Fire where the loss reaches the codebook, and the optimizer does not hold it."""
    size = gradient.gradient or 0.0
    if gradient.ema_owned or size <= limits.gradient:
        yield from _live(gradient, match, ema, limits)
        return
    yield _error(
        f"The loss's gradient at the codebook is {figure(size)}, but the optimizer {which} does not list the "
        f"codebook: its {gradient.sample_size} codes stay where they were initialised.",
        measured("codebook_gradient", size, limits.gradient),
    )


def _lost(gradient: CodebookGradient, memory: OptimizerMemory, limits: Limits) -> Problem:
    """Say that the optimizer saved with the model remembers no gradient, which the losses have."""
    size = gradient.gradient or 0.0
    return problem(
        Severity.ERROR,
        f"The losses' gradient at the codebook is {figure(size)}, but the training that saved this file gave "
        f"it none: its optimizer remembers {memory.sample_size} other parameters' gradients, so the VQ loss "
        "lost its own on the way, as by .item() or .detach().",
        measured("codebook_gradient", size, limits.gradient),
        measured("parameters_with_state", memory.sample_size),
        confidence=Confidence.MEDIUM,
        remedies=("add-vq-loss", BY_EMA),
    )


def _live(
    gradient: CodebookGradient, match: DataMatch | None, ema: EmaState | None, limits: Limits
) -> Problems:
    size = gradient.gradient or 0.0
    if gradient.ema_owned or size > limits.gradient:
        return
    number = measured("codebook_gradient", size, limits.gradient)
    if gradient.trainable:
        yield _error(
            f"The loss's gradient at the codebook is {figure(size)} and no EMA updates it, so its "
            f"{gradient.sample_size} codes stay where they were initialised.",
            number,
        )
    else:
        yield _frozen(gradient, match, ema, number, limits)


def _frozen(
    gradient: CodebookGradient,
    match: DataMatch | None,
    ema: EmaState | None,
    number: Measurement,
    limits: Limits,
) -> Problem:
    """Say that nothing seen moves the codes, and whether that does any harm."""
    codes = f"The codebook's {gradient.sample_size} codes"
    frozen = f"{codes} are frozen: they require no gradient and no EMA updates them"
    gain = None if match is None else match.mean_gain
    if gradient.fixed_input:
        return problem(
            Severity.NOTE,
            f"{frozen}, as nothing that is trained moves z_e, where the codes were placed.",
            number,
            remedies=(),
        )
    if gain is not None and gain < limits.mean_gain:
        return problem(
            Severity.NOTE,
            f"{frozen} in this pass, yet they are the means of their vectors, up to {percent(gain)} of the "
            "quantization error: something else moves them, as a callback of the training.",
            number,
            measured("mean_gain", gain, limits.mean_gain),
            remedies=(),
        )
    if _written(ema, limits) and gain is not None and gain < limits.behind:
        return problem(
            Severity.NOTE,
            f"{frozen} any more, as by a plan of the training: an EMA wrote them, and they are still the "
            f"means of their vectors, up to {percent(gain)} of the quantization error.",
            number,
            measured("mean_gain", gain, limits.behind),
            remedies=(),
        )
    return _warning(
        f"{frozen}, which is right only for layers that are made so (SimVQ, random projection).",
        number,
        if_known("mean_gain", gain, limits.mean_gain),
        confidence=Confidence.MEDIUM,
    )


def _written(ema: EmaState | None, limits: Limits) -> bool:
    """Whether the codes are what an EMA's sums over counts say."""
    if ema is None or ema.never_written or ema.sums_disagreement is None:
        return False
    return ema.sums_disagreement < limits.disagreement


CHECK = Check(
    code="VQ103",
    name="codebook-without-gradient",
    evaluate=evaluate,
    limits=Limits(),
    remedies=(BY_EMA,),
    advice=Advice(
        name=TRAIN,
        how="Compute the codebook loss on the looked-up codes before the straight-through step, and give the "
        "codebook to the optimizer.",
        code="z_q = codebook[indices]   # the raw lookup, with its gradient\n"
        "vq = F.mse_loss(z_q, z_e.detach()) + 0.25 * F.mse_loss(z_e, z_q.detach())\n"
        "z_q = z_e + (z_q - z_e).detach()   # only now",
        names=("codebook",),
        in_source=True,
    ),
    examples=(
        fires(
            "the loss reaches a codebook that the optimizer does not list",
            CodebookGradient.healthy(trainable=True, ema_owned=False, gradient=0.3),
            OptimizerMemory.healthy(codebook_listed=False, left_out=True),
        ),
        fires(
            "frozen codes that are the means of their vectors, by a callback: a note",
            CodebookGradient.healthy(ema_owned=False),
            DataMatch.healthy(mean_gain=0.02),
        ),
        fires(
            "the same for a codebook that is a parameter under a name of its own",
            CodebookGradient.healthy(trainable=True, ema_owned=False, gradient=0.3),
            OptimizerMemory.healthy(codebook_listed=False, unlisted=True),
        ),
        fires(
            "the VQ loss is added as a number: the losses have a gradient, and the file's optimizer had none",
            CodebookGradient.healthy(trainable=True, ema_owned=False, gradient=0.3),
            OptimizerMemory.healthy(codebook_listed=True, codebook_has_state=False),
        ),
        passes(
            "a buffer that no optimizer lists, and whose EMA the file does not show",
            OptimizerMemory.healthy(codebook_listed=False, unlisted=True),
            EmaState.healthy(),
        ),
        fires(
            "the codebook loss is computed on the straight-through output",
            CodebookGradient.healthy(trainable=True, ema_owned=False),
        ),
        fires(
            "a bare file: listed in the optimizer, without state, no EMA",
            OptimizerMemory.healthy(codebook_listed=True, codebook_has_state=False),
        ),
        fires(
            "a bare file: everything but the codebook is in the optimizer",
            OptimizerMemory.healthy(codebook_listed=False, left_out=True),
        ),
        fires(
            "a bare file: the same, beside EMA counts that were never written",
            OptimizerMemory.healthy(codebook_listed=False, left_out=True),
            EmaState.healthy(never_written=True),
        ),
        fires(
            "an EMA that a plan of the training has ended: a note",
            CodebookGradient.healthy(ema_owned=False),
            EmaState.healthy(),
            DataMatch.healthy(mean_gain=0.11),
        ),
        passes(
            "codes that an EMA moved in a retraining, and that the losses reach",
            CodebookGradient.healthy(trainable=True, ema_owned=False, gradient=0.3),
            OptimizerMemory.healthy(codebook_listed=True, codebook_has_state=None),
        ),
        passes(
            "a stored table of bits, as LFQ keeps it",
            CodebookGradient.healthy(ema_owned=False),
            CodebookGeometry.healthy(
                sample_size=256,
                dim=8,
                rms=1.0,
                norm_min=8**0.5,
                norm_median=8**0.5,
                norm_max=8**0.5,
                mean_norm=0.0,
                effective_rank=8.0,
            ),
        ),
        passes("an EMA owns the codebook", CodebookGradient.healthy()),
        passes(
            "a codebook parameter without state, moved by an EMA",
            OptimizerMemory.healthy(codebook_listed=True, codebook_has_state=False),
            EmaState.healthy(),
        ),
        passes(
            "a codebook that is trained by gradient",
            CodebookGradient.healthy(trainable=True, ema_owned=False, gradient=0.043, touched_rows=231),
        ),
    ),
    doc=__doc__,
)
