"""How a layer moves: training steps on copies, as they are or changed, and codes that are moved by hand."""

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


class Experiments(Evidence):
    """Training steps on copies of the model, each copy with one change, against the same steps unchanged.

    Sample size: the steps of each copy. The tuples have one entry for each experiment, in one order. Losses,
    perplexities and quantization errors are those of held batches in eval mode after the first run. A first
    run that seems to help is repeated, with the batches in another order and another seed; the steps
    without a change are run twice in any case. Tuples of what the layer does not show are empty.

    Where codes that are placed by k-means help, later experiments begin with them, and are compared with the
    same steps on placed codes: a codebook that has collapsed hides what the other changes do.

    Attributes:
        names: the experiments, by their names in `core.experiments`.
        changes: what was changed, in words that follow "with".
        runs: how often each was run.
        held: held batches.
        optimizer: its class, such as "Adam".
        own: whether it is the task's own; else Adam was assumed.
        learning_rate: of its first group, without a change.
        vq_weight: weight of the VQ loss without a change; 1 where it was assumed.
        weight_known: whether that weight is the training's, and not assumed.
        loss_before: task loss before the steps.
        loss_unchanged: task loss after the steps without a change.
        placed: whether each began with placed codes, and is compared with steps on placed codes.
        loss: task loss after the steps with each change. One that is not finite counts as `NOT_FINITE`.
        loss_without: task loss after the same steps without it.
        gain: share of that loss that the change takes away, negative where it adds, over the same batches and
            seeds; of two runs the one nearer to none, and 0 where their signs differ.
        spread: standard error of the gain over the held batches; of two runs the larger one.
        perplexity_before: exp of the plain entropy of the codes of all held batches; None where unknown.
        perplexity_unchanged: after the steps without a change, likewise.
        perplexity: after the steps with each change.
        perplexity_without: after the same steps without it.
        perplexity_factor: the perplexity with the change over that without; of two runs as for the gain.
        error_unchanged: mean square of z_e - z_q over the variance of z_e; None where unknown.
        error: the same with each change.
        chance: shares by which loss and perplexity of the two runs without a change differ; the second is 0
            where unknown.
        left_out: the experiments that were not possible, each as "name: why".
    """

    names: tuple[str, ...]
    changes: tuple[str, ...]
    runs: tuple[int, ...]
    held: int
    optimizer: str
    own: bool
    learning_rate: float
    vq_weight: float
    weight_known: bool
    loss_before: float
    loss_unchanged: float
    placed: tuple[bool, ...]
    loss: tuple[float, ...]
    loss_without: tuple[float, ...]
    gain: tuple[float, ...]
    spread: tuple[float, ...]
    perplexity_before: float | None = None
    perplexity_unchanged: float | None = None
    perplexity: tuple[float, ...] = ()
    perplexity_without: tuple[float, ...] = ()
    perplexity_factor: tuple[float, ...] = ()
    error_unchanged: float | None = None
    error: tuple[float, ...] = ()
    chance: tuple[float, float]
    left_out: tuple[str, ...] = ()


NOT_FINITE = 1e12
"""The loss that stands for one that is not finite, or larger, in `Experiments`."""

Experiments.HEALTHY = Experiments(
    layer="vq", source="trace", sample_size=32, optimizer="Adam", own=True, learning_rate=0.002,
    vq_weight=0.25, weight_known=True, held=8, loss_before=0.0135, loss_unchanged=0.0121,
    names=("codes-from-data", "lighter-vq-loss", "heavier-vq-loss", "lower-rate", "without-vq"),
    changes=(
        "the codes placed by k-means on z_e", "the VQ loss at weight 0.025 in place of 0.25",
        "the VQ loss at weight 2.5 in place of 0.25", "a tenth of the learning rate", "z_e in place of z_q",
    ),
    runs=(1, 1, 1, 1, 1), placed=(False,) * 5, loss=(0.0116, 0.0151, 0.0179, 0.0128, 0.005),
    loss_without=(0.0121,) * 5, gain=(0.041, -0.25, -0.48, -0.06, 0.59),
    spread=(0.011, 0.009, 0.015, 0.01, 0.011), perplexity_before=114.5, perplexity_unchanged=113.4,
    perplexity=(115.5, 109.5, 99.1, 114.7, 106.9), perplexity_without=(113.4,) * 5,
    perplexity_factor=(1.02, 0.97, 0.87, 1.01, 0.94), error_unchanged=0.06,
    error=(0.055, 0.07, 0.05, 0.06, 0.06), chance=(0.002, 0.002),
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
        decay: the EMA decay that the layer's modules keep; None where they keep none.
        applied: how many times a call applies that decay, by the counts before and after it and the codes
            that it chose; None where these do not tell, or the decay is another one at the next pass.
        sums_over_counts: weight with which a call adds its vectors to the EMA sums, over that with which it
            adds their number to the counts; None where no such weights explain the call's changes.
        sums_kept: share of the EMA sums that a call keeps, by the same weights; None where unknown.
        counts_kept: share of the EMA counts that a call keeps; likewise.
    """

    times: int
    decay: float | None = None
    applied: float | None = None
    sums_over_counts: float | None = None
    sums_kept: float | None = None
    counts_kept: float | None = None


EmaAdvances.HEALTHY = EmaAdvances(
    layer="vq", source="batch", sample_size=1, times=1, decay=0.99, applied=1.0, sums_over_counts=1.0,
    sums_kept=0.99, counts_kept=0.99,
)  # fmt: skip
