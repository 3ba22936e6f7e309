"""VQ317 channels-saturated: limits, and finite scalar layers with and without a gain."""

from __future__ import annotations

import pytest
import torch
import vector_quantize_pytorch as vqp
from judged import problems, says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import Evidence, GradientPath, ImplicitLevels, TaskMetrics

ENDS = ImplicitLevels.healthy(edge_share=(0.95, 0.95, 0.2), scale=40.0)
HELD = GradientPath.healthy(estimator="custom", ratio=0.1, zero_share=0.51)
TASK = TaskMetrics.healthy(accuracy=0.9, bypass_accuracy=0.9)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([ENDS], "warning"),
        ([ENDS.replace(edge_share=(0.95, 0.89, 0.2))], "passes"),
        ([ENDS.replace(levels=(8, 2, 5))], "passes"),
        # two of three levels are ends, so that the one between them must be rarer than those of many
        ([ENDS.replace(levels=(3, 3, 3), edge_share=(0.96, 0.96, 0.96))], "passes"),
        ([ENDS.replace(levels=(3, 3, 3), edge_share=(0.97, 0.97, 0.96))], "warning"),
        ([ENDS.replace(levels=(9, 9, 9), edge_share=(0.93, 0.93, 0.2))], "warning"),
        ([ENDS.replace(levels=(9, 9, 9), edge_share=(0.92, 0.92, 0.2))], "passes"),
        # it does harm where it holds the encoder, and the task is not done all the same
        ([ENDS, HELD, TASK], "error"),
        ([ENDS, HELD.replace(zero_share=0.49), TASK], "warning"),
        ([ENDS, HELD, TASK.replace(accuracy=0.99, bypass_accuracy=0.99)], "warning"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ317", *evidence) == expected


def test_the_message_names_the_size_of_z_e_only_where_it_is_too_large() -> None:
    def message(scale: float | None) -> str:
        (problem,) = problems("VQ317", ENDS.replace(scale=scale))
        return problem.message

    assert "root mean square of 40" in message(40.0)
    assert "root mean square" not in message(2.9) + message(None)


class Model(nn.Module):
    def __init__(self, quantizer: nn.Module, gain: float) -> None:
        super().__init__()
        self.encoder, self.quantizer, self.gain = nn.Linear(10, 4), quantizer, gain
        self.decoder = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.quantizer(self.gain * self.encoder(x))[0])


def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
    return vqdoctor.Losses(task=functional.mse_loss(model(x), x), vq=None)


@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [3, 3, 3, 3]])
@pytest.mark.parametrize("gain", [2.0, 200.0])
def test_models(levels: list[int], gain: float) -> None:
    torch.manual_seed(0)
    report = vqdoctor.examine(Model(vqp.FSQ(levels), gain), torch.randn(400, 6, 10), losses=losses)
    found = [f for f in report.findings if f.code == "VQ317"]
    assert len(found) == (gain > 100)
    assert all("root mean square" in f.message and "get no gradient" in f.message for f in found)
