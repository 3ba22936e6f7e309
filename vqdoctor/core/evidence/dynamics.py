"""How a layer moves: a few training steps on a copy, and the fate of codes that are moved by hand."""

from vqdoctor.core.evidence.base import Evidence


class Trace(Evidence):
    """A few optimizer steps on a copy of the model. Sample size: the steps that were taken.

    Each tuple has one number per step, in their order. The optimizer starts without moments, since the
    model comes without them: its first steps are larger than those of the training were.

    Attributes:
        optimizer: its class, such as "Adam".
        own: whether it is the task's own; else Adam was assumed.
        learning_rate: of its first group.
        vq_weight: weight of the VQ loss in the total loss that was minimised; 1 where it was assumed.
        weight_known: whether that weight is the training's, and not assumed.
        vectors: vectors in a batch.
        perplexity: exp of the plain entropy of the batch's codes; empty where they are unknown.
        used: codes that the batch chose; empty where they are unknown.
        used_in_all: codes that any of the batches chose; None where unknown.
        z_e_rms: root mean square of z_e's elements.
        codebook_rms: root mean square of the elements of the codes that the batch chose, after its step;
            empty where no codebook is stored.
        encoder_gradient: norm of the total loss's gradient at the parameters before the layer.
        z_e_gradient: norm of the total loss's gradient at z_e.
        task_loss: the task loss.
        vq_loss: the VQ loss, unweighted; empty where the task reports none.
        stopped: why it stopped before its last step; "" where it did not.
    """

    optimizer: str
    own: bool
    learning_rate: float
    vq_weight: float
    weight_known: bool
    vectors: tuple[int, ...]
    perplexity: tuple[float, ...] = ()
    used: tuple[int, ...] = ()
    used_in_all: int | None = None
    z_e_rms: tuple[float, ...]
    encoder_gradient: tuple[float, ...]
    z_e_gradient: tuple[float, ...]
    task_loss: tuple[float, ...]
    vq_loss: tuple[float, ...] = ()
    codebook_rms: tuple[float, ...] = ()
    stopped: str = ""


Trace.HEALTHY = Trace(
    layer="vq", source="trace", sample_size=8, optimizer="Adam", own=True, learning_rate=0.002, vq_weight=0.1,
    weight_known=True, vectors=(400,) * 8, used=(184, 181, 175, 177, 186, 177, 183, 180), used_in_all=252,
    perplexity=(149.0, 147.0, 147.0, 146.0, 150.0, 139.0, 151.0, 145.0),
    z_e_rms=(3.33, 3.37, 3.32, 3.33, 3.39, 3.36, 3.3, 3.29),
    codebook_rms=(3.11, 3.14, 3.09, 3.13, 3.13, 3.09, 3.11, 2.97),
    encoder_gradient=(0.046, 0.55, 0.59, 0.4, 0.3, 0.23, 0.09, 0.1),
    z_e_gradient=(0.0014, 0.0092, 0.0089, 0.008, 0.0031, 0.0039, 0.0016, 0.0015),
    task_loss=(0.026, 0.091, 0.054, 0.055, 0.055, 0.043, 0.027, 0.029),
    vq_loss=(0.32, 0.36, 0.33, 0.32, 0.32, 0.3, 0.3, 0.31),
)  # fmt: skip


class Revival(Evidence):
    """Codes that something moved by hand, and whether the EMA takes them back.

    Sample size: train-mode forward passes that were watched; 0 for a file.

    Attributes:
        num_codes: codes in the codebook, K.
        undone: the most codes that one forward pass moved and then put back before it ended.
        returned: codes that differed from their EMA sum over count in the file, and that the first
            forward pass put back there. From a file: the codes that do.
        threshold: the EMA count under which the training meant to revive a code; None where unknown.
        under_threshold: codes whose count is under half of it although they equal their sum over count.
    """

    num_codes: int
    undone: int
    returned: int
    threshold: float | None = None
    under_threshold: int | None = None


Revival.HEALTHY = Revival(layer="vq", source="batch", sample_size=4, num_codes=256, undone=0, returned=0)


class EmaAdvances(Evidence):
    """How often one training step, forward and backward, advances a layer's EMA by the same vectors.

    Sample size: calls of the layer in that step that changed its EMA counts.

    Attributes:
        times: calls that changed the counts and got the very same z_e, the most of any z_e.
    """

    times: int


EmaAdvances.HEALTHY = EmaAdvances(layer="vq", source="batch", sample_size=1, times=1)
