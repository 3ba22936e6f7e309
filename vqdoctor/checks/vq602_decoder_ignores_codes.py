"""The model does its task just as well when every code is replaced by the mean code.

## Why it matters
Then the rest of the model needs no information of the codes: the information goes around the VQ
layer (a skip connection, a conditioning input), or a strong decoder has learned to do without. The
codebook may look healthy or collapsed; neither changes what the model does.

## How to read it
The share of the model's success that is lost with the mean code: for a classifier, accuracy above
chance; otherwise the growth of the task loss. About 1 is normal, about 0 means that the model does
not depend on the codes. A classifier at chance cannot lose accuracy, so it is not judged. Where all vectors
share one code the mean code is that code: the collapse is then the cause, and the report says so.

Where the loss is exactly the same with z_e in place of z_q, with shuffled codes and with the mean code, and
the encoder learns from the task all the same, nothing reads z_q. Then this comes first: a codebook that
nothing reads is used as it happens to be.

Where the mean code costs nothing, z_e has a way to the loss around z_q, and neither z_e in place of the codes
nor the codes of another sample change anything, the way around does the task. Then the VQ loss alone
moves z_e, which shrinks onto few codes or a single point, and this comes before a collapse of codebook or
encoder, a codebook far from z_e and a VQ loss that pulls harder than the task: none of these would cost
anything.

A skip connection may also do most of the work beside codes that still help a little. Where z_e has a way to
the loss around z_q, and the output of a sample hardly changes with the codes of another sample, it is a
warning: the task may be done well, but what is stored or sent as codes does not carry it. A model that is
given its context on purpose, as a predictor is the images before, has such a way too; there the mean code
costs most of what the task can lose, and the check passes.

## Remedy
A decoder that never gets the codes needs z_q first (`decode-codes`); no training helps before. Otherwise
look for skip connections from the encoder to the decoder, conditioning on the input or on labels, and an
autoregressive decoder that sees its own targets; drop these inputs out during training, or remove them.

## References
- van den Oord et al. 2017, arXiv:1711.00937, section 4: posterior collapse under powerful decoders
"""

from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._words import Problems, error, figure, measured, percent, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodeDependence, TaskGradient, TaskMetrics
from vqdoctor.core.levels import Severity

CONSEQUENCES = ("VQ103", "VQ313", "VQ501", "VQ502", "VQ503", "VQ504", "VQ508", "VQ509", "VQ510")
"""Findings on the codebook's use, and on a codebook that the task's gradient alone would move.

Codes that no vector reached are one on its use: what is left of the codebook's start.
"""
UNNEEDED = (*CONSEQUENCES, "VQ201", "VQ301", "VQ507")
"""The same, and findings on a z_e that the task does not pull, or that is constant, where another way does
the task."""

DECODE = "decode-codes"


class Limits(CheckLimits):
    """How much must depend on the codes."""

    accuracy_share: float = limit(
        0.05,
        "Least share of the accuracy above chance that must be lost with the mean code. Digit models "
        "lose all of it; 0.05 is about the sampling error of 400 samples.",
    )
    loss_growth: float = limit(
        0.01, "Least relative growth of the task loss with the mean code, where there is no accuracy."
    )
    swapped: float = limit(
        0.1,
        "Least change of the output with the codes of another sample, over the difference of the two "
        "samples' outputs, where z_e has a way around the codes. It is 1 without such a way; small "
        "autoencoders with a skip connection measured 0.0006, one with a condition of its own 0.47.",
    )
    carried: float = limit(
        0.5,
        "Least share of the skill, or of the loss with the mean code, that goes with the mean code for codes "
        "to carry what no other way does: half. The skip connections measured 0.08 to 0.29, a predictor of "
        "nearly still images, whose codes hold what moves, 0.89.",
    )
    by_z_e: float = limit(
        0.1,
        "Largest change of the loss, as a share, or of the accuracy above chance, by z_e in place of codes "
        "that the model does not use, at which the way around does the task. Autoencoders with the skip "
        "connection of a U-Net measured 0.02 to 0.05, the same without it 0.15 to 4.3.",
    )
    skill: float = limit(
        0.1, "Least accuracy above chance, over its largest possible value, for a classifier to be judged."
    )


def evaluate(
    metrics: TaskMetrics, gradient: TaskGradient | None, dependence: CodeDependence | None, limits: Limits
) -> Problems:
    """Compare the task with its codes and with the mean code: by accuracy, else by loss."""
    if gradient is not None and _is_unread(metrics, gradient):
        how = "the decoder gets z_e" if gradient.around else "the encoder learns around the VQ layer"
        yield error(
            f"Nothing reads the codes: the task loss is {figure(metrics.loss)} whatever z_q is, also with "
            f"z_e or the mean code in its place, and {how}.",
            measured("loss_growth", 0.0, limits.loss_growth),
            explains=CONSEQUENCES,
            remedies=(DECODE,),
        )
        return
    chance = metrics.chance_accuracy
    if metrics.accuracy is not None and metrics.mean_code_accuracy is not None and chance is not None:
        gain = metrics.accuracy - chance
        if gain <= 0 or gain < limits.skill * (1 - chance):
            raise CannotJudge("the model does no better than chance, so replacing its codes cannot hurt")
        if _reads_indices(metrics, limits):
            raise CannotJudge("no class score reads z_q while the loss does: the scores may read the indices")
        what, replaced, real = "accuracy", metrics.mean_code_accuracy, metrics.accuracy
        name, effect, least = "accuracy_share", (real - replaced) / gain, limits.accuracy_share
        by_z_e = None if metrics.bypass_accuracy is None else (real - metrics.bypass_accuracy) / gain
    else:
        if metrics.loss <= 0:
            raise CannotJudge("the task loss is not positive, so its growth cannot be judged")
        what, replaced, real = "the task loss", metrics.mean_code_loss, metrics.loss
        name, effect, least = "loss_growth", replaced / real - 1, limits.loss_growth
        by_z_e = None if metrics.bypass_loss is None else metrics.bypass_loss / real - 1
    around = dependence is not None and dependence.around and dependence.swapped < limits.swapped
    if effect < least:
        instead = around and by_z_e is not None and abs(by_z_e) < limits.by_z_e
        yield error(
            f"The model does not use its codes: {what} is {figure(replaced)} with every code replaced by the "
            f"mean code, and {figure(real)} with the real codes"
            + (", and z_e, which has a way around the VQ layer, changes it as little." if instead else "."),
            measured(name, effect, least),
            explains=UNNEEDED if instead else (),
        )
    elif (
        dependence is not None
        and around
        and (effect if what == "accuracy" else effect / (1 + effect)) < limits.carried
    ):
        yield problem(
            Severity.WARNING,
            f"The codes of another sample change the output by only {percent(dependence.swapped)} of the "
            "difference between the samples: z_e has a way around the VQ layer that carries the rest.",
            measured("swapped", dependence.swapped, limits.swapped),
            measured("around", dependence.around),
            measured(name, effect, least),
        )


def _reads_indices(metrics: TaskMetrics, limits: Limits) -> bool:
    """Whether any z_q leaves each sample's class as it is, and the loss grows all the same.

    A tokenizer whose classifier embeds the indices reads no z_q, and its decoder does.
    """
    tampered = {metrics.bypass_accuracy, metrics.shuffled_accuracy, metrics.mean_code_accuracy}
    return tampered == {metrics.accuracy} and metrics.mean_code_loss > (1 + limits.loss_growth) * metrics.loss


def _is_unread(metrics: TaskMetrics, gradient: TaskGradient) -> bool:
    """Whether the loss is the same for any z_q, while the task trains the encoder by another way."""
    tampered = {metrics.bypass_loss, metrics.shuffled_loss, metrics.mean_code_loss}
    learns = bool(gradient.joined) and bool(gradient.before)  # behind a dead decoder nothing learns
    around = learns and (gradient.around or not gradient.at_output)
    return around and tampered == {metrics.loss}


_AUTOENCODER = TaskMetrics.healthy(
    accuracy=None, bypass_accuracy=None, shuffled_accuracy=None, mean_code_accuracy=None,
    chance_accuracy=None, ece=None, loss=0.071, mean_code_loss=0.0711,
)  # fmt: skip

CHECK = Check(
    code="VQ602",
    name="decoder-ignores-codes",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="remove-bypass",
        how="Close the paths of information around the VQ layer, or weaken the decoder's other inputs.",
        code="out = decoder(z_q)   # not decoder(z_e), nor decoder(z_q, skip)",
    ),
    other_advice=(
        Advice(
            name=DECODE,
            how="Give the decoder z_q: nothing reads it now, so that no training makes the codes matter.",
            code="out = decoder(z_q)   # not decoder(z_e)",
            in_source=True,
        ),
    ),
    explained_by=(*COLLAPSE, "VQ501", "VQ502", "VQ503"),
    examples=(
        fires("a skip carries the task", TaskMetrics.healthy(mean_code_accuracy=0.947, mean_code_loss=0.221)),
        fires("an autoencoder whose loss does not change", _AUTOENCODER),
        fires(
            "a U-Net's skip connection, beside a z_e that has collapsed",
            _AUTOENCODER.replace(bypass_loss=0.072),
            CodeDependence.healthy(swapped=0.0, around=0.03),
        ),
        fires(
            "a decoder that is given z_e",
            TaskMetrics.healthy(loss=0.2, bypass_loss=0.2, shuffled_loss=0.2, mean_code_loss=0.2),
            TaskGradient.healthy(around=True),
        ),
        fires(
            "a decoder that is given what the encoder makes z_e of",
            TaskMetrics.healthy(loss=0.2, bypass_loss=0.2, shuffled_loss=0.2, mean_code_loss=0.2),
            TaskGradient.healthy(at_output=None, ratio=None),
        ),
        fires(
            "a skip connection carries most of the task",
            TaskMetrics.healthy(mean_code_accuracy=0.7),
            CodeDependence.healthy(swapped=0.02, around=1.0),
        ),
        passes("the codes carry the task", TaskMetrics.healthy(), TaskGradient.healthy()),
        passes(
            "a conditioning input that bypasses the encoder too",
            TaskMetrics.healthy(mean_code_accuracy=0.7),
            CodeDependence.healthy(swapped=0.02),
        ),
        passes(
            "a context that the encoder reads as well, and codes that carry the rest",
            TaskMetrics.healthy(),
            CodeDependence.healthy(swapped=0.02, around=1.0),
        ),
    ),
    doc=__doc__,
)
