"""VQ101 straight-through-missing just inside and just outside its limits."""

from __future__ import annotations

import pytest
import torch
from judged import problems, says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import (
    CodebookGeometry,
    EmaRelation,
    EncoderStart,
    Evidence,
    GradientPath,
    ImplicitLevels,
    OptimizerMemory,
    StepSize,
    TaskGradient,
)
from vqdoctor.core.levels import Confidence

GRADIENT = GradientPath.healthy()
MEMORY = OptimizerMemory.healthy()
NEVER = MEMORY.replace(before_gradient=0.0, ratio=0.0)
STEPS = StepSize.healthy(highest_step=0.01)
TOO_LONG = EmaRelation.healthy(total=1_022.0, scale=1_022.0, code_norm=21_462.0)
SATURATED = ImplicitLevels.healthy(used=(2, 2, 2), edge_share=(1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # legitimate estimators pass, whatever their length
        ([GRADIENT.replace(estimator="rotation", ratio=0.31, cosine=0.97)], "passes"),
        ([GRADIENT.replace(estimator="custom", ratio=0.63, cosine=0.91)], "passes"),
        ([GRADIENT.replace(estimator="custom", ratio=8.0, cosine=1.0)], "passes"),
        ([GRADIENT.replace(estimator="zero", ratio=0.0, cosine=None)], "error"),
        ([GRADIENT.replace(estimator="custom", ratio=0.0009)], "warning"),
        # … and where the levels are saturated, a tanh's end passes nothing, whatever the estimator
        ([GRADIENT.replace(estimator="zero", ratio=0.0), ImplicitLevels.healthy()], "error"),
        ([GRADIENT.replace(estimator="zero", ratio=0.0), SATURATED], "cannot judge"),
        ([GRADIENT.replace(estimator="none", ratio=0.0), SATURATED], "error"),
        ([GRADIENT.replace(estimator="custom", ratio=0.7, zero_share=0.6)], "warning"),
        ([MEMORY.replace(ratio=0.0153)], "error"),
        ([MEMORY.replace(ratio=1.2)], "passes"),
        # a model that was run outranks what the optimizer remembers: its estimator is around the layer
        ([MEMORY.replace(ratio=0.0153), TaskGradient.healthy(before=0.0, joined=False)], "cannot judge"),
        ([MEMORY.replace(ratio=None)], "cannot judge"),
        ([OptimizerMemory(source="checkpoint", sample_size=0, parameters=0)], "cannot judge"),
        ([GRADIENT.replace(estimator="none", ratio=0.0), MEMORY], "error"),
        # codes that are far too long make the gradients behind the layer large, whatever the estimator
        ([MEMORY.replace(ratio=0.0297), EmaRelation.healthy()], "error"),
        ([MEMORY.replace(ratio=0.0297), TOO_LONG], "cannot judge"),
        ([GRADIENT.replace(estimator="none", ratio=0.0), MEMORY, TOO_LONG], "error"),
        ([MEMORY.replace(ratio=0.01), CodebookGeometry.healthy(dim=16, norm_median=4 * 4.9)], "error"),
        ([MEMORY.replace(ratio=0.01), CodebookGeometry.healthy(dim=16, norm_median=4 * 5.1)], "cannot judge"),
        # steps that cannot have moved a weight by its own size remember an untrained model
        ([MEMORY.replace(ratio=0.027), STEPS.replace(updates=99)], "cannot judge"),
        ([MEMORY.replace(ratio=0.027), STEPS.replace(updates=101)], "error"),
        ([MEMORY.replace(ratio=0.06), STEPS.replace(updates=101)], "passes"),
        ([GRADIENT.replace(estimator="none", ratio=0.0), STEPS.replace(updates=99)], "error"),
        ([MEMORY.replace(ratio=0.06), CodebookGeometry.healthy(dim=16, norm_median=1e-3)], "passes"),
        # an encoder without any gradient, which was trained all the same, is a pretrained one that is frozen
        ([NEVER, EncoderStart.healthy(before_drawn=0.89)], "cannot judge"),
        ([NEVER, EncoderStart.healthy(before_drawn=0.91)], "error"),
        ([NEVER], "error"),
        ([MEMORY.replace(ratio=0.0153), EncoderStart.healthy(before_drawn=0.0)], "error"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ101", *evidence) == expected


@pytest.mark.parametrize(
    ("changed", "remedies"),
    [
        ({}, ("raise-temperature",)),
        ({"zero_share_at_one": 0.49}, ("raise-temperature",)),
        # at 1 most vectors lack a gradient as well: the temperature is not the cause
        ({"zero_share_at_one": 0.51}, ("straight-through",)),
        ({"temperature": None, "zero_share_at_one": None}, ("straight-through",)),
    ],
)
def test_a_temperature_that_keeps_the_gradient_from_most_vectors(
    changed: dict[str, float | None], remedies: tuple[str, ...]
) -> None:
    low = GRADIENT.replace(estimator="custom", zero_share=0.9, temperature=1e-3, zero_share_at_one=0.0)
    (problem,) = problems("VQ101", low.replace(**changed))
    assert problem.remedies == remedies
    assert ("temperature" in problem.message) is ("raise-temperature" in remedies)


def test_a_guess_from_the_file_says_what_would_decide_it() -> None:
    (guess,) = problems("VQ101", MEMORY.replace(ratio=0.0015))
    assert guess.confidence is Confidence.MEDIUM
    assert guess.decide_with.startswith("--data")
    (certain,) = problems("VQ101", GRADIENT.replace(estimator="none", ratio=0.0))
    assert certain.confidence is Confidence.HIGH
    assert certain.decide_with == ""


class Quantizer(nn.Module):
    """A layer with its estimator the wrong way round, or without one."""

    def __init__(self, *, swapped: bool) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(16, 4))
        self.swapped = swapped

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z_q = self.codebook[torch.cdist(z, self.codebook).argmin(-1)]
        return z_q + (z - z_q).detach() if self.swapped else z_q


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("swapped", "on_codes", "words"),
    [(True, False, "wrong way round"), (False, False, "is missing"), (False, True, "is missing")],
)
def test_an_estimator_the_wrong_way_round(swapped: bool, on_codes: bool, words: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Quantizer(swapped=swapped), nn.Linear(4, 4))
    x = torch.randn(64, 8, 4)
    if on_codes:  # z_e is a code, and so it is z_q
        x = model[1].codebook.detach()[torch.randint(16, (64, 8))]
        nn.init.eye_(model[0].weight)
        nn.init.zeros_(model[0].bias)

    def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
        return vqdoctor.Losses(task=functional.mse_loss(model(x), x))

    report = vqdoctor.examine(model, x, losses=losses)
    (message,) = (f.message for f in report.findings if f.code == "VQ101")
    assert words in message
