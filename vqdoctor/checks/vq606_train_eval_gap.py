"""The same batch takes other codes in eval mode than in training, and loses by it.

## Why it matters
A codebook is placed where z_e lies in training. If z_e lies elsewhere in eval mode, since running statistics
of a batch norm are stale, or since dropout or noise comes before the layer, other codes are chosen than the
decoder was trained on. Training curves look well, and every evaluation is worse than they promise.

## How to read it
One training batch goes through two copies, one in each mode, before any update. A batch norm takes its
statistics from the batch in training, which moves codes in health too: the share that this explains is
measured on half of the batch, with batch norms alone in train mode. The gap counts where it is far larger,
and where the task loss rises or the perplexity falls in eval mode. A second pass in train mode, with other
random numbers, tells noise and dropout before the layer from running statistics: under noise these codes
differ too. Where noise is a large share of the variance of z_e in training, it counts whatever it costs in
this batch, since the codes were placed on noise and not on data. How many codes it changes says less: of many
codes that lie close together, dropout of 0.1 changes three of four. Where z_e is not seen twice, it counts
that noise decides about most codes. A layer that draws its codes at random (Gumbel, stochastic codes) is
exempt. It is an error where the task loss rises in eval mode, or noise counts by itself, and more of the task
is left to do than a sound model leaves.

A layer may choose the same codes in both modes and yet put out something else: a mixture of many codes in
training, as soft samples of a Gumbel layer at a high temperature are, and single codes in eval mode, which
the decoder never saw. The distance of its outputs from the nearest code, and the task loss, tell. A layer
that passes z_e on in training, itself for some samples (Mimi) or with noise of the size of the quantization
error (NSVQ), is exempt: its eval mode costs what quantizing costs. The codes of residual levels after the
first change with those of the levels before them, and are not judged.

## Remedy
Where the decoder gets z_e in training: give it the codes, with a straight-through gradient. Under soft
samples: draw single codes in training, with a straight-through gradient, or let the temperature fall. Under
noise: take dropout and noise out of the path before the layer. Otherwise: collect the running statistics
afresh, by train-mode passes without steps (`refresh-batch-norm`), or take a norm without them (group or layer
norm).

## References
- Ioffe and Szegedy 2015, arXiv:1502.03167, section 3.1: population statistics at inference
- Łańcucki et al. 2020, arXiv:2005.08520: batch norm before the VQ layer
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.checks import _harm
from vqdoctor.checks._words import figure, measured, percent, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import ResidualLevel, TaskMetrics, TrainEvalGap
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity

REFRESH, NO_NOISE, HARD = "refresh-batch-norm", "no-noise-before-codes", "hard-samples"
INFLATED = ("VQ201",)
"""Found where noise before the layer makes the VQ loss larger in training than it is."""


class Limits(CheckLimits):
    """How large a gap counts, and what it must cost."""

    gap: float = limit(
        0.25,
        "Least share of the codes that changes beyond what batch statistics explain. A trained batch norm "
        "with momentum 0.1 measured 0.00, with momentum 0.01 and 0.0001 0.80 and 0.84 after 200 steps.",
    )
    loss: float = limit(
        1.5,
        "Least ratio of the task loss in eval and in train mode that counts. The same batch norms measured "
        "1.04, 7.8 and 8.6; dropout of 0.2 and 0.5 before the layer 0.93.",
    )
    perplexity: float = limit(
        0.5,
        "Largest ratio of the perplexity in eval and in train mode that counts: half of the codes are lost. "
        "The same batch norms measured 0.97, 0.08 and 0.06. Four other layers measured, after the limit was "
        "set, 0.97 to 1.02 in health, 0.67 to 0.96 with dropout up to 0.2, 0.39 to 0.61 with 0.5, 0.54 to "
        "0.87 with noise of the size of z_e, 0.07 to 0.49 with three times as much, and 0.04 to 0.22 with "
        "batch norms of momentum 0.001. No gap separates these, so the limit is a convention.",
    )
    random: float = limit(
        0.667,
        "Share of the codes that batch statistics leave as they are from which it counts by itself that they "
        "change, where two passes in train mode differ as much: noise decides about two of three. On digits "
        "dropout of 0.1, 0.2, 0.3 and 0.5 before an EMA layer measured 0.43, 0.61, 0.69 and 0.86, and a "
        "squared error 1.04, 1.10, 1.57 and 3.1 times that without; noise of a third of z_e's size 0.51 and "
        "0.91 times, of z_e's size 0.89 and 1.8 times.",
    )
    noise: float = limit(
        0.25,
        "Share of z_e's variance in train mode that noise draws, from which the change of codes counts by "
        "itself. Dropout of p measures p. By the squared errors above 0.2 does next to no harm and 0.3 does, "
        "as does noise of z_e's size, which is a share of 0.5, and that of a third of it, 0.1, does not.",
    )
    blend: float = limit(
        0.25,
        "Least distance of the outputs in train mode from the nearest code, over the spread of the codes, "
        "that counts as something else than codes. Soft Gumbel samples in an autoencoder of 12 points "
        "measured 0.49 at temperature 20 (task loss 200 times as large) and 0 at 0.1, hard samples 0.",
    )
    vectors: float = limit(
        8.0,
        "Least samples in the batch: of fewer, a batch norm's statistics explain any change of the codes.",
    )


def evaluate(
    modes: TrainEvalGap, level: ResidualLevel | None, metrics: TaskMetrics | None, limits: Limits
) -> Iterator[Problem]:
    """Fire on a gap that batch norms do not explain, and that costs something."""
    if modes.sample_size < limits.vectors:
        raise CannotJudge(f"a batch of {modes.sample_size} samples is too small to compare the modes")
    gap = modes.explained - modes.agreement
    loss = modes.eval_loss / modes.train_loss if modes.train_loss > 0 else 1.0
    perplexity = modes.eval_perplexity / modes.train_perplexity
    unlearned = _harm.unlearned(metrics)
    severity = Severity.ERROR if loss > limits.loss and unlearned else Severity.WARNING
    if modes.never_codes and loss > limits.loss:
        yield problem(
            severity,
            "In train mode the decoder gets z_e and never a code; in eval mode it gets codes, and the task "
            f"loss is {figure(loss)} times as large.",
            measured("loss_ratio", loss, limits.loss),
            measured("agreement", modes.agreement),
            confidence=Confidence.HIGH,
            remedies=("straight-through",),
        )
        return
    if modes.blend is not None and modes.blend > limits.blend and loss > limits.loss:
        yield _blended(severity, modes, modes.blend, loss, limits)
        return
    if level is not None and level.level > 1:
        raise CannotJudge(
            f"level {level.level} of {level.levels} quantizes what the levels before it left, and any change "
            "of their codes changes its own: the first level shows it"
        )
    costs = loss > limits.loss or perplexity < limits.perplexity
    drawn = modes.explained - modes.repeated
    noisy = drawn > limits.gap
    if modes.noise is None:
        by_itself = measured("gap", min(gap, drawn), limits.random * modes.explained)
    else:
        by_itself = measured("noise", modes.noise if noisy else 0.0, limits.noise)
    counts = by_itself.value > (by_itself.limit or 0.0)
    measured_noise = modes.noise is not None and counts
    if not ((gap > limits.gap and (costs or counts)) or measured_noise):
        return
    beside = (
        f"and {percent(1 - modes.repeated)} from one pass in train mode to the next: noise or dropout before "
        "the layer draws them"
        if noisy
        else f"where batch statistics explain {percent(1 - modes.explained)}"
    )
    yield problem(
        Severity.ERROR if counts and unlearned else severity,
        f"{percent(1 - modes.agreement)} of a training batch's codes change from train to eval mode, {beside}"
        f"{_cost(modes, loss, perplexity, limits)}.",
        measured("gap", gap, limits.gap) if costs and gap > limits.gap else by_itself,
        measured("loss_ratio", loss, limits.loss),
        measured("perplexity_ratio", perplexity, limits.perplexity),
        measured("agreement", modes.agreement),
        measured("repeated", modes.repeated),
        confidence=Confidence.HIGH,
        remedies=(NO_NOISE if noisy else REFRESH,),
        explains=INFLATED if noisy else (),
    )


def _blended(severity: Severity, modes: TrainEvalGap, blend: float, loss: float, limits: Limits) -> Problem:
    """Say that the decoder learned from other vectors than codes."""
    return problem(
        severity,
        f"In train mode the layer puts out vectors that lie {figure(blend)} times the spread of the codes "
        f"away from the nearest one, and single codes in eval mode, where the task loss is {figure(loss)} "
        "times as large.",
        measured("blend", blend, limits.blend),
        measured("loss_ratio", loss, limits.loss),
        measured("agreement", modes.agreement),
        confidence=Confidence.HIGH,
        remedies=(HARD,),
    )


def _cost(modes: TrainEvalGap, loss: float, perplexity: float, limits: Limits) -> str:
    if loss > limits.loss:
        return f", and the task loss is {figure(loss)} times as large in eval mode"
    if perplexity < limits.perplexity:
        before, after = figure(modes.train_perplexity), figure(modes.eval_perplexity)
        return f", and the perplexity falls from {before} to {after} in eval mode"
    return ""


CHECK = Check(
    code="VQ606",
    name="train-eval-gap",
    evaluate=evaluate,
    limits=Limits(),
    remedies=(REFRESH,),
    other_advice=(
        Advice(
            name=NO_NOISE,
            how="Take dropout and noise out of the path before the VQ layer, and train again.",
            code="z_q, indices, vq_loss = vq(encoder(x))   # not vq(dropout(encoder(x)))\nout = decoder(z_q)",
            names=("vq", "z_q, indices, vq_loss"),
            in_source=True,
        ),
        Advice(
            name=HARD,
            how="Draw single codes in training, or let the temperature fall to about 0.1.",
            code="weights = F.gumbel_softmax(logits, tau, hard=True)   # not hard=False\n"
            "z_q = weights @ codebook",
        ),
    ),
    explained_by=("VQ901",),
    examples=(
        fires(
            "noise before the first level",
            TrainEvalGap.healthy(agreement=0.12, repeated=0.09, eval_perplexity=18.0),
            ResidualLevel.healthy(level=1),
        ),
        fires(
            "soft samples at a high temperature, and single codes in eval mode",
            TrainEvalGap.healthy(blend=0.8, train_loss=0.0073, eval_loss=0.26),
        ),
        fires(
            "the same, and most of the task is still to do: an error",
            TrainEvalGap.healthy(blend=0.8, train_loss=0.0073, eval_loss=0.26),
            TaskMetrics.healthy(accuracy=0.31, chance_accuracy=0.1),
        ),
        fires(
            "z_e in place of every code in train mode",
            TrainEvalGap.healthy(never_codes=True, train_loss=0.01, eval_loss=0.2),
        ),
        fires(
            "running statistics that were never updated",
            TrainEvalGap.healthy(agreement=0.1, explained=0.9, eval_loss=0.9, eval_perplexity=40.0),
        ),
        fires(
            "noise before the layer, without which few codes are chosen",
            TrainEvalGap.healthy(agreement=0.1, repeated=0.08, eval_perplexity=21.0),
        ),
        fires(
            "dropout that decides about most codes",
            TrainEvalGap.healthy(agreement=0.14, repeated=0.1, eval_loss=0.025),
        ),
        fires(
            "dropout of a half in front of few codes",
            TrainEvalGap.healthy(agreement=0.41, explained=0.83, repeated=0.36, noise=0.51),
        ),
        fires(
            "the same where a batch norm also moves codes, and noise is what is measured",
            TrainEvalGap.healthy(agreement=0.36, explained=0.56, repeated=0.25, noise=0.51),
        ),
        passes(
            "dropout of a tenth in front of codes that lie close together",
            TrainEvalGap.healthy(agreement=0.24, repeated=0.2, noise=0.1),
        ),
        passes("the same in both modes", TrainEvalGap.healthy()),
        passes("no codes in eval mode either", TrainEvalGap.healthy(never_codes=True)),
        passes(
            "a batch norm before the layer, in small batches",
            TrainEvalGap.healthy(agreement=0.7, explained=0.65),
        ),
        passes(
            "dropout that costs nothing in eval mode",
            TrainEvalGap.healthy(agreement=0.5, repeated=0.45, eval_loss=0.02),
        ),
    ),
    doc=__doc__,
)
