"""Gradients through and at the VQ layer in train mode, and what they left of the weights before it."""

from vqdoctor.core.evidence.base import Evidence


class GradientPath(Evidence):
    """The vector-Jacobian product of z_q with respect to z_e. Sample size: vectors.

    A random cotangent v is sent into z_q and arrives at z_e as g; the training loss is not used,
    since its commitment term reaches z_e by another way and hides a missing estimator.

    Attributes:
        estimator: "none" (no path), "zero" (g is zero), "straight-through" (g equals v),
            "rotation" (|g|/|v| = |z_q|/|z_e| per vector), or "custom".
        ratio: |g| / |v| over all vectors.
        cosine: cosine of g and v over all vectors; None where g is zero or missing, or has another
            dimension than v.
        zero_share: share of the vectors whose g is zero.
        worst_gain: the largest |g| / |v| of a single vector.
        puts_out_z_e: whether no path leads back, and yet z_q is z_e and not codes: with the estimator the
            wrong way round it is `z_q + (z_e - z_q).detach()`.
        temperature_name: name of the low temperature that the layer keeps; "" where it keeps none, or most
            vectors get a gradient.
        temperature: its value.
        zero_share_at_one: the `zero_share` of the first batch if it were 1.
    """

    estimator: str
    ratio: float
    cosine: float | None = None
    zero_share: float
    worst_gain: float
    puts_out_z_e: bool = False
    temperature_name: str = ""
    temperature: float | None = None
    zero_share_at_one: float | None = None


GradientPath.HEALTHY = GradientPath(
    layer="vq", source="batch", sample_size=4_096, estimator="straight-through", ratio=1.0, cosine=1.0,
    zero_share=0.0, worst_gain=1.0,
)  # fmt: skip


class TaskGradient(Evidence):
    """The gradient of the task loss (without the VQ loss) around the VQ layer. Sample size: vectors.

    Attributes:
        at_output: norm of the task loss's gradient at z_q, or, where the estimator is outside of the
            layer, at what it puts in place of z_q; None if no path leads there.
        at_input: norm of the task loss's gradient at z_e; 0 if no path leads there.
        ratio: at_input / at_output; None where at_output is missing or zero.
        before: root mean square gradient of the parameters that z_e depends on, those of VQ layers left out.
        after: root mean square gradient of the other parameters that the task loss depends on.
        joined: whether a path of autograd leads from the task loss to the parameters before the layer; the
            gradient along it may be zero. None without parameters there, or where it is unknown.
        around: whether no gradient arrives at z_q, and at_output is that at z_e.
    """

    at_output: float | None
    at_input: float
    ratio: float | None
    before: float | None = None
    after: float | None = None
    joined: bool | None = None
    around: bool = False


TaskGradient.HEALTHY = TaskGradient(
    layer="vq", source="batch", sample_size=4_096, at_output=0.21, at_input=0.21, ratio=1.0, before=0.012,
    after=0.0061, joined=True,
)  # fmt: skip


class LossBalance(Evidence):
    """How hard the VQ loss pulls at z_e, against the task loss. Sample size: vectors.

    Attributes:
        task_loss: the task loss.
        vq_loss: the VQ loss, unweighted.
        vq_weight: the weight that the user's training gave it; None where unknown.
        vq_gradient: norm of the unweighted VQ loss's gradient at z_e.
        task_gradient: norm of the task loss's gradient at z_e.
        ratio: vq_weight · vq_gradient / task_gradient; None where the weight is unknown or the
            task's gradient is zero.
    """

    task_loss: float
    vq_loss: float
    vq_weight: float | None
    vq_gradient: float
    task_gradient: float
    ratio: float | None


LossBalance.HEALTHY = LossBalance(
    layer="vq", source="batch", sample_size=4_096, task_loss=0.31, vq_loss=0.165, vq_weight=0.1,
    vq_gradient=0.0099, task_gradient=0.2, ratio=0.0049,
)  # fmt: skip


class CodebookGradient(Evidence):
    """The mover of the codebook: the optimizer, an EMA, or nobody. Sample size: the rows, K.

    Attributes:
        trainable: whether the codebook is a parameter that requires a gradient.
        ema_owned: whether a train-mode forward pass rewrites the codebook (an EMA update).
        gradient: norm of the total loss's gradient at the codebook; None if there is no path.
        touched_rows: rows with a gradient that is not zero.
        fixed_input: whether nothing that is trained moves z_e, so that its vectors stay where they were.
    """

    trainable: bool
    ema_owned: bool
    gradient: float | None
    touched_rows: int = 0
    fixed_input: bool = False


CodebookGradient.HEALTHY = CodebookGradient(
    layer="vq", source="batch", sample_size=256, trainable=False, ema_owned=True, gradient=None
)


class EncoderStart(Evidence):
    """Whether the weights before the VQ layers are those of a constructor. Sample size: matrices looked at.

    "Before" are the parameters that z_e depends on, "after" the others that the task depends on; from a file,
    the parameters that precede and follow its first VQ layer in the model's order. Looked at are weights of
    two dimensions and more, of 256 numbers at least.

    Attributes:
        before: numbers before the layers that were looked at.
        before_drawn: share of these in matrices that still are as torch draws them.
        after: numbers after the layers that were looked at.
        after_drawn: share of these in matrices that still are as torch draws them.
        listed: share of all numbers before the layers that the optimizer lists, live the task's own; None
            where that is unknown.
        contradicted: whether the model's order and the names of its parts disagree on before and after.
    """

    before: int
    before_drawn: float
    after: int
    after_drawn: float
    listed: float | None = None
    contradicted: bool = False


EncoderStart.HEALTHY = EncoderStart(
    source="checkpoint", sample_size=6, before=18_432, before_drawn=0.0, after=9_216, after_drawn=0.0,
    listed=1.0,
)  # fmt: skip
