"""A training in the processes of torch's launcher: the codebook before each step is kept by each of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from small_training import CPU, Digits, reference_layer
from torch import nn

from vqdoctor.core.launcher import Launched
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.models.task import Losses
from vqdoctor.training.ranks import joined
from vqdoctor.training.splits import Splits
from vqdoctor.training.trainer import Trainer

STEPS = 200
PLAN = TrainingPlan(epochs=5, steps=40, vq_weight=0.1, data_init=True, revive_under=0.1, seed=3)
FLOAT32, FLOAT64 = "float32", "float64"


class Recorded(Digits):
    """Digits in a precision, with the codebook before each training step."""

    def __init__(self, dtype: torch.dtype = torch.float64, images: int = 200, **config: Any) -> None:
        super().__init__(images=images, **config)
        self.dtype = dtype
        self.codebooks: list[torch.Tensor] = []

    def model(self) -> nn.Module:
        return super().model().to(self.dtype)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        if model.training:
            self.codebooks.append(model.vq.embedding.detach().clone())
        x, y = batch
        return super().losses(model, (x.to(self.dtype), y))


def main(dtype: str, folder: Path) -> None:
    """Train, and write the codebooks of this process."""
    with joined(Launched.of()) as ranks:
        task = Recorded(getattr(torch, dtype))
        torch.manual_seed(0)
        model = task.model()
        trainer = Trainer(
            model=model,
            task=task,
            splits=Splits(task, CPU),
            layers=(reference_layer(model),),
            plan=PLAN,
            ranks=ranks,
        )
        trainer.run()
        codebooks = torch.stack([*task.codebooks, model.vq.embedding])
        torch.save(codebooks, folder / f"{dtype}-{ranks.rank}-of-{ranks.size}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
