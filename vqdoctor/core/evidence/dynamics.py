"""How a layer moves: a few training steps on a copy, and what becomes of codes that are moved by hand."""

from __future__ import annotations

from dataclasses import dataclass

from vqdoctor.core.evidence.base import Evidence


@dataclass(frozen=True, kw_only=True)
class Trace(Evidence):
    """A few optimizer steps on a copy of the model. Sample size: the steps that were taken.

    Each tuple has one number a step, in their order. The optimizer starts without moments, since the
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

    kind = "trace"
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


@dataclass(frozen=True, kw_only=True)
class Revival(Evidence):
    """Codes that something moved by hand, and whether the EMA takes them back.

    Sample size: train-mode forward passes that were watched; 0 for a file.

    Attributes:
        num_codes: codes in the codebook, K.
        undone: the most codes that one forward pass moved and then put back before it ended.
        returned: codes that stood elsewhere than their EMA sum over count in the file, and that the first
            forward pass put back there. From a file: the codes that do.
        threshold: the EMA count under which the training meant to revive a code; None where unknown.
        under_threshold: codes whose count is under half of it although they stand at their sum over count.
    """

    kind = "revival"
    num_codes: int
    undone: int
    returned: int
    threshold: float | None = None
    under_threshold: int | None = None
