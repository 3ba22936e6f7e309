"""All that a training of the fault bench depends on, its seeded fault included."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Settings of one training; every default is the healthy choice, so a fault is one setting changed.

    Attributes:
        implementation: whose quantizer: a name in `IMPLEMENTATIONS`.
        data: name of the data set.
        seed: seed of everything random.
        codes: codes in a codebook, K.
        dim: dimension of z_e and of a code, D.
        normalise: whether a batch norm stands before the VQ layer.
        offset: constant that the encoder adds to z_e.
        spread: factor on z_e before the offset.
        steps: optimizer steps.
        batch: samples a batch.
        learning_rate: Adam's.
        vq_weight: weight of the VQ loss.
        straight_through: whether the gradient at z_q is passed to z_e.
        attached: whether what comes after the VQ layer keeps its graph.
        encoder_graph: whether the encoder runs with a graph, and not under `no_grad`.
        permuted: whether a feature map is permuted before it is cut into vectors.
        codebook_trained: whether anything moves the codebook.
        rule: how an EMA divides its sums: a name in `fault_bench.ema.DIVISORS`.
        sphere: what is put on the unit sphere: "codes" alone, after each update, "vectors" alone, before the
            lookup, "both", or "" for neither.
        one_writer: whether only one of EMA and optimizer writes it.
        finite: whether what comes after the VQ layer has a finite gradient everywhere.
        lookup_in_full: whether the model runs in float32, and not in bfloat16 wherever autocast sees fit.
        beta_on_encoder: whether beta multiplies the encoder's term, and not the codebook's.
        averaged: whether the VQ loss is averaged over the dimensions, and not summed.
        vq_in_loss: whether the VQ loss takes part.
        loss_has_gradient: whether the VQ loss depends on anything that is trained.
        residual_detached: whether a residual level's codes are subtracted without their gradient.
        residual_subtracted: whether a residual level's codes are subtracted at all.
        data_init: whether the codebook starts where the data is.
        distinct: different vectors that it starts from, at most; 0 is no bound.
        decay: the EMA's.
        counts_from_one: whether EMA counts start at one, and not at zero.
        whole_writes: whether a revival writes the EMA's sums and counts beside the codes.
        flag_saved: whether the file keeps that the codebook is initialised.
        guarded: whether only training writes the codebook.
        codebook_decay: weight decay on the codebook.
        shuffled: whether the training batches come in a random order.
        paired: whether each label belongs to its sample.
        noise: standard deviation of what is added to z_e in training alone.
        dropout: share of z_e's elements that training leaves out.
        momentum: that of the batch norm before the VQ layer.
        revival: whether dead codes are revived.
        threshold: EMA count under which the layer replaces a code in its forward pass; 0 never.
        averaged_weights: decay of an EMA of all weights and buffers, which is saved instead; 0 for none.
        sums_written: whether the codes that are written at the end agree with their EMA sums.
        every_level: whether training reaches the last residual level.
        alive: whether the encoder's output varies.
        directions: directions that the map before the VQ layer lets through; 0 lets all through.
        position: size of what the position adds to z_e.
        decodes_codes: whether what comes after is given z_q, and not z_e.
        input_scale: factor on all samples.
        val_scale: factor on the samples of val alone.
        padding: share of each sample that is padding, zeros behind its end.
        beta: weight of the encoder's term within the VQ loss of a codebook that the optimizer moves.
        optimizer_saved: whether the file holds the optimizer's state.
    """

    implementation: str
    data: str = "digits"
    seed: int = 0
    codes: int = 128
    dim: int = 16
    normalise: bool = True
    offset: float = 0.0
    spread: float = 1.0
    steps: int = 200
    batch: int = 32
    learning_rate: float = 2e-3
    vq_weight: float = 0.25
    straight_through: bool = True
    attached: bool = True
    encoder_graph: bool = True
    permuted: bool = True
    codebook_trained: bool = True
    rule: str = "sound"
    sphere: str = ""
    one_writer: bool = True
    finite: bool = True
    lookup_in_full: bool = True
    beta_on_encoder: bool = True
    averaged: bool = True
    vq_in_loss: bool = True
    loss_has_gradient: bool = True
    residual_detached: bool = True
    residual_subtracted: bool = True
    data_init: bool = True
    distinct: int = 0
    decay: float = 0.95
    counts_from_one: bool = True
    whole_writes: bool = True
    flag_saved: bool = True
    guarded: bool = True
    codebook_decay: float = 0.0
    shuffled: bool = True
    paired: bool = True
    noise: float = 0.0
    dropout: float = 0.0
    momentum: float = 0.1
    revival: bool = True
    threshold: float = 0.0
    averaged_weights: float = 0.0
    sums_written: bool = True
    every_level: bool = True
    alive: bool = True
    directions: int = 0
    position: float = 0.0
    decodes_codes: bool = True
    input_scale: float = 1.0
    val_scale: float = 1.0
    padding: float = 0.0
    beta: float = 0.25
    optimizer_saved: bool = True

    def config(self) -> dict[str, Any]:
        """Return what a user's script would record; faults are not written on a file."""
        names = ("seed", "codes", "dim", "batch", "learning_rate", "vq_weight", "decay", "threshold")
        known = {name: value for name, value in asdict(self).items() if name in names}
        known["batch_size"] = known.pop("batch")
        threshold = known.pop("threshold")
        return {**known, **({"threshold_ema_dead_code": threshold} if threshold else {})}
