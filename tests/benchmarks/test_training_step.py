"""What a step of a retraining costs: its CPU time beside that of a plain step on the same batch, in turns."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from large_model import Model, Task
from small_training import CPU, Digits, reference_layer

from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.capture.reader import Reader
from vqdoctor.core.levels import Confidence
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.training.splits import Splits
from vqdoctor.training.trainer import Trainer

pytestmark = pytest.mark.bench

PLAN = TrainingPlan(vq_weight=0.1, data_init=True, revive_under=0.1)
"""The recipe: codes placed in the data and led by an EMA, dead ones revived."""


def large_layer(model: Model) -> CapturedLayer:
    """The VQ layer of the large model."""
    view = QuantizerView(
        name="vq",
        layout="embedding",
        confidence=Confidence.HIGH,
        num_codes=512,
        dim=64,
        keys={"codebook": "vq.embedding.weight"},
        load_codebook=lambda: model.vq.embedding.weight.detach().numpy(),
    )
    reader = Reader(view=view)
    return CapturedLayer(
        view=view, model=model, tensors=view.keys, reader=reader, path="vq", gap="", maps=True
    )


def plain(task: Any, batch: Any) -> Callable[[], None]:
    """Return a step of a training as anybody writes it."""
    torch.manual_seed(0)
    model = task.model().train()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        found = task.losses(model, batch)
        adam.zero_grad()
        (found.task + 0.1 * found.vq).backward()
        adam.step()

    return step


def retraining(task: Any, layer: Callable[[Any], CapturedLayer], batch: Any) -> Callable[[], None]:
    """Return a step of a retraining by the recipe."""
    torch.manual_seed(0)
    model = task.model()
    trainer = Trainer(model=model, task=task, splits=Splits(task, CPU), layers=(layer(model),), plan=PLAN)
    trainer.train_to(1)
    numbers, generator = itertools.count(), torch.Generator().manual_seed(0)
    model.train()

    def step() -> None:
        trainer._step(next(numbers), batch, 1.0, generator)

    return step


@pytest.mark.parametrize(
    ("task", "layer", "steps", "most"),
    [(Digits(1797, num_codes=256, dim=16), reference_layer, 200, 1.4), (Task(), large_layer, 6, 1.1)],
    ids=["29 thousand parameters", "98 million parameters"],
)
def test_a_step_of_a_retraining_against_a_plain_one(
    task: Any, layer: Callable[[Any], CapturedLayer], steps: int, most: float
) -> None:
    batch = next(iter(task.batches("train")))
    by_hand, ours = plain(task, batch), retraining(task, layer, batch)
    ratios = []
    for _ in range(7):
        spent = []
        for step in (by_hand, ours):
            begun = time.process_time()
            for _ in range(steps):
                step()
            spent.append(time.process_time() - begun)
        ratios.append(spent[1] / spent[0])
    middle = statistics.median(ratios)
    told = f"{middle:.2f} of a plain one ({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"\na step of a retraining: {told}", end="")
    assert middle < most
