"""How the whole model does its task, with its codes and without them."""

from vqdoctor.core.evidence.base import Evidence


class InputSummary(Evidence):
    """The input: a wrong normalisation looks like collapse. Sample size: samples.

    Attributes:
        name: "x" or the model's own name of its input, or "z_e" where a dump was given.
        shape: shape of the whole batch.
        minimum: smallest element.
        maximum: largest element.
        mean: mean of the elements.
        std: standard deviation of the elements.
        labels: number of distinct labels; 0 without labels.
    """

    name: str
    shape: tuple[int, ...]
    minimum: float
    maximum: float
    mean: float
    std: float
    labels: int = 0


InputSummary.HEALTHY = InputSummary(
    source="batch", sample_size=1_797, name="x", shape=(1_797, 1, 8, 8), minimum=0.0, maximum=1.0,
    mean=0.3053, std=0.3761, labels=10,
)  # fmt: skip


class FirstInput(Evidence):
    """The input of the first layer with weights, as the model made it. Sample size: numbers.

    Attributes:
        module: path of that layer.
        rms: their root mean square.
        largest: the largest magnitude among them.
        val_rms: root mean square of the same on validation batches; None where there are none.
        channel_rank: effective rank of its channels about their means, as they come; None where they are one
            or very many.
        scaled_rank: the same with every channel at standard deviation one: larger where the scales of a few
            channels hide the others.
        fill: the fill value of the channel that has the most of one: a number that comes again and again,
            far from all others of its channel. None where there is none.
        fill_channel: that channel.
        fill_channels: how many channels have such a value.
        fill_share: share of the numbers that are fill values.
        fill_variance: share of the variance of all channels that would be gone with them.
    """

    module: str
    rms: float
    largest: float
    val_rms: float | None = None
    channel_rank: float | None = None
    scaled_rank: float | None = None
    fill: float | None = None
    fill_channel: int = 0
    fill_channels: int = 0
    fill_share: float = 0.0
    fill_variance: float = 0.0


FirstInput.HEALTHY = FirstInput(
    source="batch",
    sample_size=115_008,
    module="encoder.0",
    rms=0.484,
    largest=1.0,
    val_rms=0.486,
    channel_rank=18.0,
    scaled_rank=21.0,
)


class TaskMetrics(Evidence):
    """Accuracy and task loss in eval mode, with the codes tampered with. Sample size: samples.

    "Bypass" replaces z_q by z_e; "shuffled" permutes the codes between the positions of a sample;
    "mean code" replaces every z_q by the mean z_q. Accuracies and ECE are None without labels.

    Attributes:
        split: which data ("val": never used in training or early stopping).
        held_out: whether that split has data of its own; False where it is the same data as "train".
        accuracy: with the quantizer.
        bypass_accuracy: with z_e in place of z_q.
        shuffled_accuracy: with the codes shuffled between positions.
        mean_code_accuracy: with every code replaced by the mean code.
        chance_accuracy: share of the most frequent label.
        balanced_skill: least skill where each class counts alike, with the codes or with z_e: see
            `metrics.calibration.balanced_skill`.
        ece: expected calibration error, 15 uniform bins, L1.
        ece_low: lower end of its 95 % interval.
        ece_high: upper end of its 95 % interval.
        loss: the task loss with the quantizer.
        bypass_loss: with z_e in place of z_q; None, as is the accuracy, where z_e does not fit there.
        shuffled_loss: with the codes shuffled between positions.
        mean_code_loss: with every code replaced by the mean code.
        classes: classes that are scored, where the task loss is the cross-entropy of these scores and no
            more: a pure classifier. None where the loss has another part, such as a reconstruction.
    """

    split: str
    held_out: bool = True
    accuracy: float | None = None
    bypass_accuracy: float | None = None
    shuffled_accuracy: float | None = None
    mean_code_accuracy: float | None = None
    chance_accuracy: float | None = None
    balanced_skill: float | None = None
    ece: float | None = None
    ece_low: float | None = None
    ece_high: float | None = None
    loss: float
    bypass_loss: float | None
    shuffled_loss: float
    mean_code_loss: float
    classes: int | None = None


TaskMetrics.HEALTHY = TaskMetrics(
    source="batch", sample_size=397, split="val", accuracy=0.95, bypass_accuracy=0.96, shuffled_accuracy=0.94,
    mean_code_accuracy=0.11, chance_accuracy=0.11, ece=0.021, loss=0.22, bypass_loss=0.2, shuffled_loss=0.24,
    mean_code_loss=2.6,
)  # fmt: skip


class CodeDependence(Evidence):
    """How far the output follows the codes, and whether z_e has a way around them. Sample size: samples.

    Attributes:
        swapped: mean squared change of the output where every sample gets the z_q of another one, over the
            mean squared difference of these two samples' outputs: 1 where the codes alone tell samples apart.
        around: share of the numbers before the layers that the task loss depends on where z_q is cut off: 0
            where the encoder reaches the loss through its codes alone.
    """

    swapped: float
    around: float


CodeDependence.HEALTHY = CodeDependence(source="batch", sample_size=64, swapped=1.0, around=0.0)


class PositionInformation(Evidence):
    """How much single positions carry, against all positions averaged. Sample size: vectors.

    Attributes:
        positions: positions in a sample.
        code_information: mutual information of one position's code and the label, in bits,
            corrected for the sample size.
        label_entropy: entropy of the labels, in bits: the most that a code could tell.
        code_accuracy: held-out accuracy of the best guess of the label from one position's code.
        pooled_accuracy: accuracy of the model, which sees all positions.
        chance_accuracy: share of the most frequent label.
        code_entropy: entropy of the codes given their position, in bits: what a position says at all.
        position_share: share of the variance of z_e that the mean z_e of each position has: 1 where z_e tells
            the position alone. None where z_e was not seen.
    """

    positions: int
    code_information: float
    label_entropy: float
    code_accuracy: float
    pooled_accuracy: float
    chance_accuracy: float
    code_entropy: float
    position_share: float | None = None


PositionInformation.HEALTHY = PositionInformation(
    layer="vq", source="batch", sample_size=28_752, positions=16, code_information=1.61, label_entropy=3.32,
    code_accuracy=0.5, pooled_accuracy=0.95, chance_accuracy=0.11, code_entropy=5.1,
    position_share=0.2,
)  # fmt: skip
