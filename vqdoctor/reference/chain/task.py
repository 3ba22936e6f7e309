"""The chain's task: to name the activity at each step of a stitched sequence, and to reconstruct it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vqdoctor.core.frozen import frozen
from vqdoctor.models.task import Losses
from vqdoctor.reference.chain.model import STRIDE, ChainClassifier
from vqdoctor.reference.chain.segments import label_loss
from vqdoctor.reference.chain.sequences import stitch
from vqdoctor.reference.recipes import Recipe
from vqdoctor.reference.task import Batch, DataSet, ReferenceTask


@frozen
class ChainRecipe(Recipe):
    """The switches of the chain, whose defaults are a small healthy one.

    Attributes:
        use_hdp: whether there is an HDP stage.
        use_hsmm: whether there is an HSMM stage.
        clusters: clusters of the HDP's group level.
        base_clusters: clusters of its base level.
        temperature: of the HDP's assignments. The spread of a log-probability grows with the root of the
            dimensions that it sums up; the root of 32 evens that out.
        states: hidden states of the HSMM, of which each belongs to a class.
        durations: its durations: "negative-binomial", "poisson" or "gaussian".
        input_transitions: whether its transitions depend on the input.
        hdp_weight: weight of the HDP's own loss.
        hsmm_weight: weight of the HSMM's own loss: how improbable it finds the labels.
    """

    use_hdp: bool = True
    use_hsmm: bool = True
    clusters: int = 24
    base_clusters: int = 32
    temperature: float = 5.7
    states: int = 7
    durations: str = "negative-binomial"
    input_transitions: bool = False
    hdp_weight: float = 0.1
    hsmm_weight: float = 1.0


CHAIN = ChainRecipe(
    num_codes=64,
    dim=32,
    reconstruction_weight=1.0,
    warm_up_epochs=3,
    epochs=20,
    batch_size=16,
    learning_rate=1e-2,
)
"""The healthy chain."""


class ChainTask(ReferenceTask):
    """The chain, its sequences and its losses.

    The task loss is cross-entropy over all steps + `reconstruction_weight` × mean squared error of the inputs
    + `hdp_weight` × the HDP's loss + `hsmm_weight` × the HSMM's.
    """

    default = CHAIN
    settings = (
        "num_codes", "dim", "decay", "straight_through", "use_vq", "use_hdp", "use_hsmm",
        "clusters", "base_clusters", "temperature", "states", "durations", "input_transitions",
    )  # fmt: skip

    def model(self) -> ChainClassifier:
        """Return the model as the config says that it was trained."""
        return ChainClassifier(**self.model_settings())

    def losses(self, model: torch.nn.Module, batch: Batch) -> Losses:
        """Run the model on a batch (sequences, labels of all steps); each step counts as a sample."""
        x, y = batch
        output = model(x)
        logits, labels = output["logits"].flatten(0, 1), y.flatten()
        error = functional.mse_loss(output["reconstruction"], x)
        task = functional.cross_entropy(logits, labels)
        task = task + self.number("reconstruction_weight") * error
        task = task + self.number("hdp_weight") * output["hdp_loss"]
        if output["scores"] is not None:
            task = task + self.number("hsmm_weight") * label_loss(output["scores"], y, self.classes)
        return Losses(task=task, vq=output["vq_loss"].get("vq"), logits=logits, labels=labels)


@frozen
class Sequences(DataSet):
    """Sequences, and windows to stitch them from."""

    def make(self, config: Mapping[str, object], data: Mapping[str, NDArray[np.generic]]) -> ReferenceTask:
        """Return the task on sequences x [N, 3, 2, T] with y [N, T / 4], or on the windows of motion.npz.

        Raises:
            ValueError: if the data is neither.
        """
        if "recording" in data:
            data = stitch(data, step=STRIDE)
        x, y = data["x"], data["y"]
        steps, rest = divmod(x.shape[3], STRIDE) if x.ndim == 4 else (0, 1)
        if rest or x.shape[1:3] != (3, 2) or y.shape != (len(x), steps):
            raise ValueError(
                f"x is {list(x.shape)} and y {list(y.shape)}, and not sequences [N, 3, 2, T] with labels "
                "[N, T / 4], and there is no recording to stitch them from"
            )
        return ChainTask(x, y, data.get("split"), config, classes=self.classes)


SEQUENCES = Sequences(name="motion", classes=7, file="motion.npz", model="conv2d-vq-hdp-hsmm")
