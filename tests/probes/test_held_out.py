"""Whether the figures of val are of data that the model was not trained on."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vqdoctor.probes.model import task_metrics

_spec = importlib.util.spec_from_file_location("vq_libraries", Path(__file__).with_name("libraries.py"))
assert _spec is not None and _spec.loader is not None
lib = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lib)


class Splits(lib.ToyTask):
    """Serves these data for "stop" and for "val"."""

    def __init__(self, served: dict[str, str]) -> None:
        torch.manual_seed(0)
        super().__init__(lib.Classifier(lib.PlainVQ()))
        self.served = served

    def batches(self, split: str) -> Iterator[Any]:
        return super().batches(self.served.get(split, split))


@pytest.mark.parametrize(
    ("served", "held_out"),
    [
        ({"stop": "val"}, True),  # `train if split == "train" else val`
        ({"stop": "train"}, True),
        ({"stop": "train", "val": "train"}, False),
    ],
)
def test_val_is_held_out_unless_it_is_the_training_data(served: dict[str, str], held_out: bool) -> None:
    task = Splits(served)
    (metrics,) = task_metrics.PROBE.measure(lib.context(task.model(), task))
    assert metrics.held_out is held_out
