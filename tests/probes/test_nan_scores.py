"""Class scores that are not numbers: no accuracy is told."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import TaskMetrics


class VQ(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 4)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z_q = self.embedding(torch.cdist(z, self.embedding.weight).argmin(-1))
        return z + (z_q - z).detach()


class Classifier(nn.Module):
    def __init__(self, wrong: float) -> None:
        super().__init__()
        self.encoder, self.vq, self.head = nn.Linear(8, 4), VQ(), nn.Linear(4, 3)
        self.wrong = wrong

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.head(self.vq(self.encoder(x)))
        return torch.where(x[:, :1] > 1, torch.full_like(scores, self.wrong), scores)


def losses(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> vqdoctor.Losses:
    scores = model(batch[0])
    loss = functional.cross_entropy(torch.nan_to_num(scores), batch[1])
    return vqdoctor.Losses(task=loss, vq=None, logits=scores, labels=batch[1])


@pytest.mark.parametrize("wrong", [0.0, float("nan")])
def test_scores_that_are_nan_give_no_accuracy(wrong: float) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(256, 8), torch.randint(0, 3, (256,))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        report = vqdoctor.examine(Classifier(wrong), (x, y), losses=losses)
    assert not [outcome for outcome in report.outcomes if outcome.status == "crashed"]
    found = report.find(TaskMetrics)
    if wrong == wrong:
        assert found is not None and found.accuracy is not None
        return
    assert found is None
    (gap,) = [item for item in report.unavailable if item.kind == "task-metrics"]
    assert gap.reason == f"the class scores of {int((x[:, 0] > 1).sum())} of 256 samples are NaN"
