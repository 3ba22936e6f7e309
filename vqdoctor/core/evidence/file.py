"""The content of a checkpoint file itself: its record of the training, and its oddities."""

from vqdoctor.core.evidence.base import Evidence


class TrainingRecord(Evidence):
    """The training, as the file records it. Sample size: the number of settings found.

    None means that the file does not say; nothing is assumed.

    Attributes:
        vq_weight: weight of the VQ loss in the total loss.
        commitment_weight: weight (beta) of the commitment term inside the VQ loss.
        decay: EMA decay of the codebook.
        epochs: epochs done.
        updates: optimizer steps (= EMA updates) done.
        batch_size: samples in a batch.
        learning_rate: learning rate, from the config or the optimizer's groups.
        revival_threshold: the EMA count under which the training replaces a code.
        task: the built-in task that the file names.
        retrained: whether `fix --retrain` wrote the file: its optimizer settings are of the training before.
        exempt_codebook: whether that retraining took weight decay off the codebook.
        codes_by_ema: layers whose codes an EMA of that retraining moved, in place of the source's own way.
        found_at: where each setting was found, as "setting=key.path" strings.
    """

    vq_weight: float | None = None
    commitment_weight: float | None = None
    decay: float | None = None
    epochs: int | None = None
    updates: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    revival_threshold: float | None = None
    task: str | None = None
    retrained: bool = False
    exempt_codebook: bool = False
    codes_by_ema: tuple[str, ...] = ()
    found_at: tuple[str, ...] = ()


TrainingRecord.HEALTHY = TrainingRecord(
    source="checkpoint", sample_size=6, vq_weight=0.1, decay=0.99, epochs=30, updates=2_640, batch_size=16,
    learning_rate=0.001,
)  # fmt: skip


class RecordedScores(Evidence):
    """How well the model does, as the file itself records. Sample size: the numbers found.

    None means that the file does not say.

    Attributes:
        accuracy: the best recorded accuracy, as a share of one.
        cross_entropy: the least recorded cross-entropy, by its name.
        classes: classes of the task, from a setting or from the shape of the head.
        vq_loss_rise: median of the last quarter of the recorded VQ losses, over that of the first.
        updates: updates that the file records.
        found_at: where each was found, as "accuracy=val_acc" strings.
    """

    accuracy: float | None = None
    cross_entropy: float | None = None
    classes: int | None = None
    vq_loss_rise: float | None = None
    updates: int | None = None
    found_at: tuple[str, ...] = ()

    def where(self, name: str) -> str:
        """Return where a number was found."""
        return next((at.partition("=")[2] for at in self.found_at if at.startswith(f"{name}=")), "the file")


RecordedScores.HEALTHY = RecordedScores(
    source="checkpoint", sample_size=2, accuracy=0.93, cross_entropy=0.21, classes=10, vq_loss_rise=2.1,
    updates=2_640, found_at=("accuracy=val_acc", "cross_entropy=metrics.ce", "classes=config.num_classes",
    "vq_loss_rise=history.vq_loss"),
)  # fmt: skip


class ForeignObjects(Evidence):
    """Pickled globals that are neither tensors nor plain containers. Sample size: how many.

    Attributes:
        harmless: names of classes that are known to hold values only ("argparse.Namespace").
        unknown: names that are not known here, and could do anything ("project.models.Net").
        dangerous: names ("os.system") that would run code in an ordinary unpickler.
    """

    harmless: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    dangerous: tuple[str, ...] = ()


ForeignObjects.HEALTHY = ForeignObjects(source="checkpoint", sample_size=0)


class NonFinite(Evidence):
    """NaN and infinite values. Sample size: the number of values that were looked at.

    With a layer: in that layer's codebook, counts and sums. Without: in the rest of the file.

    Attributes:
        tensors: keys of the tensors that hold them, the first 16.
        tensor_count: how many tensors hold them.
        nan: NaN values seen.
        inf: infinite values seen.
        sampled: whether only a part of each tensor was looked at.
    """

    tensors: tuple[str, ...] = ()
    tensor_count: int = 0
    nan: int = 0
    inf: int = 0
    sampled: bool = False


NonFinite.HEALTHY = NonFinite(layer="vq", source="checkpoint", sample_size=33_024)


class OptimizerMemory(Evidence):
    """Past gradients, as the optimizer's second moments remember them.

    Sample size: the number of parameters that have a state. "Before" and "after" are the parameters before
    and after the VQ layer in the model's own order (the encoder and the decoder with the head), or that are
    named so where the order contradicts the names. "Gradient" is the root mean square of sqrt(exp_avg_sq):
    the size of a single gradient element, as the optimizer last remembers it.

    Attributes:
        parameters: parameters that the optimizer lists.
        before_gradient: gradient size before the VQ layer; None without parameters there.
        after_gradient: gradient size after the VQ layer; None without parameters there.
        ratio: before_gradient / after_gradient; None where either is missing or after is zero.
        codebook_listed: whether the codebook is among the optimizer's parameters.
        codebook_has_state: whether the optimizer holds a state for it (E8: none = no gradient ever); None
            where it is not listed, and where it holds none since a retraining's own EMA moved the codes.
        codebook_untouched_rows: codebook rows whose second moment is exactly zero: never selected.
        recent_codes: codes that certainly had a gradient in the last 100 updates, by the ratio of Adam's two
            moments; None where these do not tell.
        recent_codes_high: codes that may have had one in the last 400 updates; likewise.
        weight_decay: weight decay of the codebook's parameter group; None where not listed.
        left_out: whether all parameters around the layer have a state, and the codebook, an embedding's
            weight or one of an nn.ParameterList, is not listed.
        unlisted: the same whatever the codebook's name: it may be a buffer, which a running model tells.
        contradicted: whether the model's order and the names of its parts disagree on before and after.
        before_with_state: share of the numbers before the first VQ layer of which the optimizer holds a
            state; of the model as a whole alone. None where it holds none of any parameter.
    """

    parameters: int
    before_gradient: float | None = None
    after_gradient: float | None = None
    ratio: float | None = None
    codebook_listed: bool | None = None
    codebook_has_state: bool | None = None
    codebook_untouched_rows: int | None = None
    recent_codes: int | None = None
    recent_codes_high: int | None = None
    weight_decay: float | None = None
    left_out: bool = False
    unlisted: bool = False
    contradicted: bool = False
    before_with_state: float | None = None


OptimizerMemory.HEALTHY = OptimizerMemory(
    layer="vq", source="checkpoint", sample_size=14, parameters=14, before_gradient=0.026,
    after_gradient=0.0051, ratio=5.1, codebook_listed=False,
)  # fmt: skip


class RankAgreement(Evidence):
    """A codebook beside those of the training's other processes. Sample size: its codes, K.

    Attributes:
        others: other processes that have it: those that saved a file, or that the launcher started.
        differing: those of which any code is another one.
        worst: the largest median distance of a code to another process's, over the spread of the codes.
        codes: the most codes that are others in one process.
    """

    others: int
    differing: int
    worst: float
    codes: int = 0


RankAgreement.HEALTHY = RankAgreement(
    layer="vq", source="checkpoint", sample_size=256, others=3, differing=0, worst=0.0
)
