"""A layer that maps its codes by trained weights takes no estimator behind these."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_training import Digits, reference_layer
from torch import nn

from vqdoctor.training.treatment import against_outer_estimators


class Mapped(nn.Module):
    """The reference quantizer between two maps, as in DAC."""

    def __init__(self, inside: nn.Module, width: int) -> None:
        super().__init__()
        self.inside = inside
        self.before, self.behind = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)

    def forward(self, z_e: torch.Tensor) -> Any:
        z_q, *rest = self.inside(self.before(z_e))
        return (self.behind(z_q), *rest)


@pytest.mark.parametrize("straight_through", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
def test_weights_behind_the_lookup_are_named(mapped: bool, straight_through: bool) -> None:
    task = Digits(straight_through=straight_through)
    model: Any = task.model()
    layer = reference_layer(model)
    if mapped:
        model.vq = Mapped(model.vq, width=8)
        tensors = {role: name.replace("vq.", "vq.inside.") for role, name in layer.tensors.items()}
        layer = replace(layer, tensors=tensors)
    why = against_outer_estimators(model, task, next(iter(task.batches("train"))), (layer,), 0)
    assert why.startswith("vq maps vectors by vq.be") is mapped
    assert why.endswith("the estimator belongs at the lookup itself, in your source") is mapped
