"""VQ605: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from judged import says
from torch import nn
from use_models import BATCH, DIM, POSITIONS, Layer, Model, Task, examined, found, trained

from vqdoctor.core.evidence import Evidence, TaskMetrics
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.vq.kmeans import kmeans

METRICS = TaskMetrics.healthy()

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([METRICS.replace(accuracy=0.8)], "passes"),
        ([METRICS.replace(accuracy=0.78)], "warning"),
        ([METRICS.replace(accuracy=0.78, sample_size=40)], "passes"),
        ([METRICS.replace(accuracy=0.12, bypass_accuracy=0.29)], "warning"),
        ([METRICS.replace(accuracy=0.12, bypass_accuracy=0.28)], "cannot judge"),
        ([METRICS.replace(accuracy=None)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ605", *evidence) == expected


def quantized_afterwards(path: Path, codes: int) -> Report:
    """Train without quantizing, then put k-means codes between the halves."""

    class Open(nn.Module):
        def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
            return z, None, torch.zeros((), requires_grad=True)

    task = Task(lambda: Model(Open()))
    whole = trained(task, 400, 1e-2)
    task.build = lambda: Model(Layer(codes))
    model = task.model()
    model.encoder, model.head = whole.encoder, whole.head
    with torch.no_grad():
        vectors = model.encoder(task.x).reshape(-1, DIM)
    clusters = kmeans(vectors, codes, generator=torch.Generator().manual_seed(0))
    book = model.vq._codebook
    book.embed.copy_(clusters.centres)
    book.cluster_size.copy_(clusters.counts * BATCH * POSITIONS / clusters.counts.sum())
    book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
    return examined(path, task, model)


@pytest.mark.parametrize(("codes", "expected"), [(2, {"VQ605": Severity.WARNING}), (64, {})])
def test_codes_that_cost_the_task(tmp_path: Path, codes: int, expected: dict[str, Severity]) -> None:
    assert found(quantized_afterwards(tmp_path, codes), "VQ605") == expected
