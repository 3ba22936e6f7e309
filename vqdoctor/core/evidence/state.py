"""The state of a VQ layer as training goes on: started, kept, undone, decayed, and fed in which order."""

from vqdoctor.core.evidence.base import Evidence


class Initialisation(Evidence):
    """Whether the codebook, as stored, was ever initialised and trained. Sample size: the rows, K.

    Attributes:
        identical_rows: rows that equal the first one, itself included; K where all are one and the same.
        zero_rows: rows that are exactly zero.
        flag: the stored flag of data-driven initialisation: False, it is still to come; True, it is done
            or was never asked for; None, there is no flag.
        counts_written: whether the EMA counts differ from each other; None without counts.
        stepped: whether an optimizer in the file ever took a step; None where that is unknown.
        updates: updates that the file records; None where it does not.
        structure: how far the correlations between the dimensions of the rows exceed those of independent
            noise, in standard deviations: about 0 for any random start, large for a trained codebook.
        frozen: whether the layer's table may rightly stay as it was initialised.
    """

    identical_rows: int
    zero_rows: int
    flag: bool | None = None
    counts_written: bool | None = None
    stepped: bool | None = None
    updates: int | None = None
    structure: float
    frozen: bool = False


Initialisation.HEALTHY = Initialisation(
    layer="vq", source="checkpoint", sample_size=256, identical_rows=1, zero_rows=0, counts_written=True,
    stepped=True, updates=2_640, structure=270.0,
)  # fmt: skip


class StartRows(Evidence):
    """Codes that still are as a constructor drew them. Sample size: the codes, K.

    Attributes:
        rows: how many.
        start: the distribution that they were drawn from, such as "U(±1/256)"; "" for none.
        unused: codes that are known to be unused, by data, EMA counts or the optimizer's memory; None if
            that is unknown.
        frozen: whether the layer's table may rightly stay as it was drawn.
        by_logits: whether logits choose the codes, so that these need not lie where the data are.
    """

    rows: int
    start: str
    unused: int | None = None
    frozen: bool = False
    by_logits: bool = False


StartRows.HEALTHY = StartRows(layer="vq", source="checkpoint", sample_size=256, rows=0, start="", unused=0)


class UnmovedRows(Evidence):
    """Codes that were never chosen since they were set, and where they began. Sample size: the codes, K.

    An EMA multiplies the count and the sum of a code that is not chosen by one factor, so such codes keep
    equal counts, and their sums over their counts are their start. Under Adam without weight decay a code
    without a gradient stays where it is.

    Attributes:
        rows: how many.
        told_by: "counts" or "optimizer".
        structure: how far the correlations between the dimensions of their start exceed those of independent
            noise, in standard deviations: about 0 for a random start, large for vectors of the data.
        offset: distance of the mean of their start from the mean of the other codes, in root mean square
            distances of these from their mean, or, beside a single other code, of the start from its mean;
            None where these do not vary.
        frozen: whether the layer's table may rightly stay as it was drawn.
        count: the EMA count that they share; None where the optimizer shows them.
    """

    rows: int
    told_by: str
    structure: float
    offset: float | None
    frozen: bool = False
    count: float | None = None


UnmovedRows.HEALTHY = UnmovedRows(
    layer="vq", source="checkpoint", sample_size=256, rows=0, told_by="counts", structure=0.0, offset=None
)


class TrainForward(Evidence):
    """The effect of train-mode forward passes alone on a codebook just loaded. Sample size: forward passes.

    A move is the median distance that a code in use travels in one pass, over the median distance of the
    codes in use from their mean: sqrt(2) where each is replaced by another one.

    Attributes:
        first_moved: the move in the first pass after loading.
        later_moved: the largest move in a later pass.
        writes_counts: whether a pass changes the EMA counts; None without counts.
        decay: the EMA decay, by the counts of codes that no vector chose; None where they do not tell.
        batch_means: the share of the codes chosen in a later pass that are the means of that pass's vectors
            after it, the least of the passes; None where the layer gives no codes.
    """

    first_moved: float
    later_moved: float
    writes_counts: bool | None = None
    decay: float | None = None
    batch_means: float | None = None


TrainForward.HEALTHY = TrainForward(
    layer="vq", source="batch", sample_size=4, first_moved=0.002, later_moved=0.002, writes_counts=True
)


class EvalForward(Evidence):
    """Changes of the model by an eval-mode forward pass. Sample size: tensors that were compared.

    With a layer: the tensors of that layer. Without: all others.

    Attributes:
        changed: names of the parameters and buffers that changed, the first 16.
        changed_count: how many changed.
        codebook: whether a codebook is among them.
        again: whether a second pass over the same batch changes a codebook as well, as an EMA does and an
            initialisation does not; None where the first changes none.
    """

    changed: tuple[str, ...] = ()
    changed_count: int = 0
    codebook: bool = False
    again: bool | None = None


EvalForward.HEALTHY = EvalForward(layer="vq", source="batch", sample_size=3)


class WeightDecay(Evidence):
    """The effect of the optimizer's weight decay on the codebook. Sample size: the rows, K.

    Attributes:
        weight_decay: weight decay of the codebook's parameter group.
        learning_rate: learning rate of that group; None where unknown.
        updates: updates done with it; None where unknown.
        adaptive: whether the decay goes through Adam's division by the gradient's size (L2 in Adam, not in
            AdamW), so that a code without a gradient of its own shrinks by the learning rate every step.
        lost: share of its length that a code which is never chosen has lost by now; None where the
            learning rate or the updates are unknown. A task's learning rate that is higher than the file's is
            taken to have fallen evenly.
        lost_at_most: that share at the highest learning rate; None where no schedule is known.
        short_rows: rows under a tenth of the length of the longest.
        reach: the longest way that one number of a code can have gone: under Adam and its kin a step is at
            most about the learning rate (Kingma & Ba 2015, arXiv:1412.6980, section 2.1). None for optimizers
            whose steps have no such bound, and where the learning rate or the updates are unknown.
    """

    weight_decay: float
    learning_rate: float | None = None
    updates: int | None = None
    adaptive: bool = False
    lost: float | None = None
    lost_at_most: float | None = None
    short_rows: int = 0
    reach: float | None = None


WeightDecay.HEALTHY = WeightDecay(
    layer="vq", source="checkpoint", sample_size=256, weight_decay=0.01, learning_rate=0.001, updates=2_640,
    lost=0.026,
)  # fmt: skip


class StepSize(Evidence):
    """One step of Adam beside the weights that it moves. Sample size: the weight matrices looked at.

    A layer with f inputs starts with weights of about 1 / sqrt(f), so that its output has the size of its
    input. Adam moves every weight by about the learning rate, which changes the output by the learning rate
    times sqrt(f) of that size even where the signs of the moves are independent.

    Attributes:
        learning_rate: the learning rate now; of several groups that of the matrix in the middle.
        highest_rate: the highest one that the file records, a schedule's start or peak included.
        updates: steps done.
        step: the median over the matrices of learning rate times sqrt(f).
        highest_step: the same with the highest rate.
        growth: the median over the model's matrices outside of its VQ layers of their root mean square times
            sqrt(f): about 0.6 to 1.4 as they are initialised. None where they are not found.
    """

    learning_rate: float
    highest_rate: float
    updates: int
    step: float
    highest_step: float
    growth: float | None = None


StepSize.HEALTHY = StepSize(
    source="checkpoint", sample_size=7, learning_rate=0.001, highest_rate=0.001, updates=2_640, step=0.011,
    highest_step=0.011, growth=0.86,
)  # fmt: skip


class CodeExpiry(Evidence):
    """How a batch compares with the codebook, and with the count under which codes are replaced.

    Sample size: the codes, K.

    Attributes:
        vectors: vectors in a batch; from a checkpoint the sum of the EMA counts, which revivals raise.
        threshold: the absolute count under which the layer replaces a code; None where it is unknown.
        expired: share of the codes whose count is not above the threshold; None where either is unknown.
        replaced: codes that one train-mode forward pass moves far, as a share of the most that it could
            replace, min(K, vectors), after the first pass; None from a checkpoint.
        assumed_batch_size: the samples of that batch, where the training's are unknown; None where they are
            the training's.
        epoch_vectors: vectors in the whole training data; None where that is unknown.
    """

    vectors: float
    threshold: float | None = None
    expired: float | None = None
    replaced: float | None = None
    assumed_batch_size: int | None = None
    epoch_vectors: float | None = None


CodeExpiry.HEALTHY = CodeExpiry(
    layer="vq", source="batch", sample_size=256, vectors=400.0, replaced=0.0, epoch_vectors=28_752.0
)


class LiveReplacement(Evidence):
    """Codes in use that train-mode forward passes drive away from their vectors. Sample size: the passes.

    A code in use is chosen at least half as often in a pass as an even usage would choose it.

    Attributes:
        worst: the largest share of the codes in use of a pass that it drove away.
        mean: the same share over all passes: a code in use lives for 1 / mean passes.
    """

    worst: float
    mean: float


LiveReplacement.HEALTHY = LiveReplacement(layer="vq", source="batch", sample_size=67, worst=0.0, mean=0.0)


class BatchMixing(Evidence):
    """How alike samples of neighbouring training batches are, against a random order. Sample size: samples.

    The drift is the correlation between the samples of neighbouring batches: 0 in a random order, 1 where
    runs of batches hold one and the same kind of sample. Its z-score is that of a permutation test.

    Attributes:
        batch_size: samples in a batch.
        batches: batches that were looked at.
        label_drift: drift of the labels; None without labels.
        label_z: its z-score.
        code_drift: drift of the chosen codes, of the layer where it is largest; None if these are unknown.
        code_z: its z-score.
    """

    batch_size: int
    batches: int
    label_drift: float | None = None
    label_z: float | None = None
    code_drift: float | None = None
    code_z: float | None = None


BatchMixing.HEALTHY = BatchMixing(
    source="batch", sample_size=1_100, batch_size=25, batches=44, label_drift=0.0002, label_z=0.1,
    code_drift=0.0004, code_z=0.7,
)  # fmt: skip


class TrainEvalGap(Evidence):
    """The codes of one training batch in train mode and in eval mode. Sample size: samples of the batch.

    Attributes:
        agreement: share of the codes that are the same in both modes.
        explained: the same for half of the batch on its own and in the whole, with batch norms alone in train
            mode: what their batch statistics explain. 1 where there are no batch norms.
        repeated: share of the codes that are the same in two passes in train mode with other random numbers.
            1 where all before the layer is certain.
        train_loss: the task loss in train mode.
        eval_loss: the task loss in eval mode.
        train_perplexity: exp of the plain entropy of the batch's codes in train mode.
        eval_perplexity: the same in eval mode.
        blend: median distance of what the layer puts out in train mode from the nearest code, over the root
            mean square distance of the codes from their mean: 0 where it puts out codes, about 1 for their
            mean. None where the codes are unknown, or eval mode puts out something else as well.
        never_codes: whether the decoder never gets a code in train mode: the layer puts out z_e itself there
            and codes in eval mode, or the task loss depends on what it puts out in eval mode alone.
        noise: share of the variance of z_e in train mode that two passes with other random numbers do not
            share: p under a dropout of p. None where z_e was not seen twice.
    """

    agreement: float
    explained: float
    repeated: float = 1.0
    train_loss: float
    eval_loss: float
    train_perplexity: float
    eval_perplexity: float
    blend: float | None = None
    never_codes: bool = False
    noise: float | None = None


TrainEvalGap.HEALTHY = TrainEvalGap(
    layer="vq", source="batch", sample_size=25, agreement=1.0, explained=1.0, train_loss=0.026,
    eval_loss=0.026, train_perplexity=149.0, eval_perplexity=149.0, blend=0.0,
)  # fmt: skip


class UnsavedTable(Evidence):
    """Whether a state dict leaves out the codes that the model looks up. Sample size: the codes seen at work.

    Attributes:
        tables: names of the tables of codes in use that are in no state dict, and differ in each new model.
        codes: rows of the first; 0 without one.
        dim: numbers of each row.
        buffer: whether it is a buffer that is not persistent; else a plain attribute.
    """

    tables: tuple[str, ...] = ()
    codes: int = 0
    dim: int = 0
    buffer: bool = False


UnsavedTable.HEALTHY = UnsavedTable(source="batch", sample_size=64)
