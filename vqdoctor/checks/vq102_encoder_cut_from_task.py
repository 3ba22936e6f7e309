"""The VQ layer passes gradients, but the task's gradient does not reach the encoder.

## Why it matters
A healthy VQ layer does not help if something next to it cuts the path: a `.detach()` or `no_grad`
around the quantizer or the encoder, or a decoder that is fed with indices instead of z_q. The VQ
loss alone then moves the encoder, and the end is the same as without a straight-through estimator.

## How to read it
The gradient of the task loss (without the VQ loss) is measured at z_q, at z_e and at the parameters
that z_e depends on (before the layer) and that the loss depends on otherwise (after it). No path to z_q: the
cut lies after the layer. Zero at z_e: in it. No path to the parameters before it: the cut lies between the
encoder and the layer. A path along which the gradient is zero is not a cut: behind codes of a wrong scale
(VQ309, VQ310) every ReLU may be out of action, and in front of the layer those of a dead encoder (VQ507).

## Remedy
Look for `.detach()`, `torch.no_grad()`, a decoder that looks the codes up again from the indices, and
an encoder that was frozen for a first phase and never released.

## References
- Biohub/esm#92: the decoder got indices only, so the encoder got no gradient
- ritheshkumar95/pytorch-vqvae#7 and #14: which of the two losses trains what
"""

from vqdoctor.checks._words import Problems, error, figure, measured
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import GradientPath, TaskGradient

ZERO = (
    "a path leads from the task loss to {}, and the gradient along it is zero, as behind units that are out "
    "of action: that is not a cut"
)


class Limits(CheckLimits):
    """When the task counts as cut off from the encoder."""

    gradient_ratio: float = limit(
        0.001, "Least ratio of the task's gradient at z_e and at z_q; the same bar as for the VQ layer alone."
    )
    parameter_ratio: float = limit(
        1e-6,
        "Least ratio of the task's gradients at the parameters before and after the VQ layer. A cut "
        "gives exactly 0; rounding leaves no more than 1e-7 of a float32.",
    )


def evaluate(task: TaskGradient, path: GradientPath | None, limits: Limits) -> Problems:
    """Look for the place from which the task's gradient is gone, from the loss backwards."""
    if task.before and task.after and task.before / task.after >= limits.parameter_ratio:
        return  # by whichever way: residual stacks have one estimator around levels that have none
    if task.at_output is None and not task.after:
        raise CannotJudge("the task loss has no gradient anywhere behind the VQ layer")
    if task.at_output is None and task.joined:
        raise CannotJudge(ZERO.format("the encoder"))
    if task.at_output is None:
        passes_on = path is not None and path.ratio >= limits.gradient_ratio
        layer = "The VQ layer passes gradients, but the" if passes_on else "The"
        where = "the VQ layer and the loss" if path is not None else "the encoder and the loss"
        yield error(
            f"{layer} task's gradient at the VQ layer's output is 0, and no path leads there: something "
            f"between {where} detaches it, so the task cannot train the encoder.",
            measured("gradient_at_output", 0.0),
        )
    elif task.at_output == 0:
        raise CannotJudge(ZERO.format("z_q"))
    elif task.at_input < limits.gradient_ratio * task.at_output:
        share = task.at_input / task.at_output
        yield error(
            f"{f'Only {figure(share)}' if share else 'None'} of the task's gradient at the VQ layer's output "
            "arrives at its input, so the task cannot train the encoder.",
            measured("gradient_ratio", share, limits.gradient_ratio),
        )
    elif task.before is not None and task.after and task.joined:
        raise CannotJudge(ZERO.format("the encoder"))
    elif task.before is not None and task.after:
        yield error(
            f"The task's gradient reaches the VQ layer's input, but is {figure(task.before)} at the "
            "encoder's parameters: something between the encoder and the VQ layer detaches it.",
            measured("parameter_ratio", task.before / task.after, limits.parameter_ratio),
        )


CHECK = Check(
    code="VQ102",
    name="encoder-cut-from-task",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="reattach-encoder",
        how="Remove the detach or no_grad between the encoder, the VQ layer and the loss, and feed the "
        "decoder z_q itself.",
        code="z_q, indices, vq_loss = vq(encoder(x))   # no no_grad, no detach\n"
        "out = decoder(z_q)                       # z_q, not codebook[indices]",
        names=("vq", "z_q, indices, vq_loss"),
        in_source=True,
    ),
    meaningless_after=("VQ101",),
    examples=(
        fires(
            "z_q is detached on its way to the decoder",
            TaskGradient.healthy(at_output=None, at_input=0.0, ratio=None, before=0.0, joined=False),
            GradientPath.healthy(),
        ),
        fires(
            "the encoder runs under no_grad",
            TaskGradient.healthy(before=0.0, joined=False),
            GradientPath.healthy(),
        ),
        passes("the task trains the encoder", TaskGradient.healthy(), GradientPath.healthy()),
        passes(
            "a frozen encoder has no gradients to compare", TaskGradient.healthy(before=None, joined=None)
        ),
    ),
    doc=__doc__,
)
