"""Times the steps of a training with a wide encoder, alone or in the processes of torch's launcher."""

from __future__ import annotations

import time

import torch
from rank_training import Recorded
from small_training import CPU, reference_layer
from torch import nn

from vqdoctor.core.launcher import Launched
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.reference.model import Conv2dVQClassifier
from vqdoctor.training.ranks import joined
from vqdoctor.training.splits import Splits
from vqdoctor.training.trainer import Trainer

STEPS = 12


class Wide(Recorded):
    def model(self) -> nn.Module:
        return Conv2dVQClassifier(num_codes=256, dim=64, width=384)


def main() -> None:
    """Print the seconds of a step, of the clock and of this process alone."""
    torch.set_num_threads(1)
    with joined(Launched.of()) as ranks:
        task = Wide(torch.float32, images=1200, batch_size=256)
        torch.manual_seed(0)
        model = task.model()
        trainer = Trainer(
            model=model,
            task=task,
            splits=Splits(task, CPU),
            layers=(reference_layer(model),),
            plan=TrainingPlan(epochs=2, steps=STEPS // 2, vq_weight=0.1, revive_under=0.1),
            ranks=ranks,
        )
        trainer.train_to(1)
        begun, used = time.monotonic(), time.process_time()
        trainer.train_to(2)
        clock, own = time.monotonic() - begun, time.process_time() - used
        steps = STEPS // 2
        print(
            f"{ranks.size} processes: {clock / steps:.2f} s a step by the clock, "
            f"{own / steps:.2f} s of a core each"
        )


if __name__ == "__main__":
    main()
