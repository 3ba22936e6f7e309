from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from small_training import CPU, Digits, reference_layer

from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.training.splits import Splits
from vqdoctor.training.trainer import Trainer


@pytest.fixture
def start() -> Callable[..., Trainer]:
    """Start the training of a small reference model; the same model every time."""

    def start(task: Digits | None = None, *, plan: TrainingPlan, **more: Any) -> Trainer:
        task = task or Digits()
        torch.manual_seed(0)
        model = task.model()
        return Trainer(
            model=model,
            task=task,
            splits=Splits(task, CPU),
            layers=(reference_layer(model),),
            plan=plan,
            **more,
        )

    return start


@pytest.fixture(autouse=True)
def _same_randomness() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
