"""Moment matching, on its own and in the training of a codebook that gradients move."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from small_training import CPU, Digits
from torch import nn
from torch.nn import functional

from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.capture.reader import Reader
from vqdoctor.core.levels import Confidence
from vqdoctor.core.retraining import LayerFigures
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.reference.quantizer import Quantized, as_map, perplexity_of, vectors_of
from vqdoctor.training.moment_matching import Moments, transported, wasserstein
from vqdoctor.training.splits import Splits
from vqdoctor.training.trainer import Trainer

CODES = 512


def scattered(rows: int, dim: int, seed: int) -> torch.Tensor:
    """Vectors with a mean of their own and correlated elements."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    return drawn @ torch.randn(dim, dim, generator=generator, dtype=torch.float64) + 10 * seed


def test_codes_are_taken_to_the_moments_of_the_vectors() -> None:
    target = Moments.of(scattered(500, 6, 2))
    moved = transported(scattered(40, 6, 1), target)
    torch.testing.assert_close(Moments.of(moved).mean, target.mean)
    torch.testing.assert_close(Moments.of(moved).covariance, target.covariance)
    assert wasserstein(Moments.of(moved), target) == pytest.approx(0.0, abs=1e-6)


def test_the_distance_is_that_of_the_formula_by_scipy() -> None:
    one, other = (scattered(50, 5, seed).numpy() for seed in (1, 2))
    a, b = (np.cov(v.T, bias=True) for v in (one, other))
    shift = np.square(one.mean(0) - other.mean(0)).sum()
    expected = shift + np.trace(a + b - 2 * np.real(sqrtm(sqrtm(a) @ b @ sqrtm(a))))
    found = wasserstein(*(Moments.of(torch.from_numpy(v)) for v in (one, other)))
    assert found == pytest.approx(expected)


def test_the_way_to_its_place_is_the_way_down_the_distance() -> None:
    codes, target = scattered(12, 3, 1), Moments.of(scattered(200, 3, 2))
    places, step = transported(codes, target), 1e-4
    for row, column in ((0, 0), (5, 2), (11, 1)):
        ends = []
        for sign in (step, -step):
            moved = codes.clone()
            moved[row, column] += sign
            ends.append(wasserstein(Moments.of(moved), target))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(float(2 / 12 * (codes - places)[row, column]), rel=1e-4)


def test_codes_in_one_place_are_moved_together_and_stay_finite() -> None:
    target = Moments.of(scattered(200, 4, 2))
    moved = transported(torch.ones(10, 4), target)
    torch.testing.assert_close(moved, target.mean.float().expand(10, 4))


class GradientVQ(nn.Module):
    """Codes that gradients move, as in van den Oord et al. 2017; they start far from every z_e."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CODES, dim)
        self.dim = dim
        with torch.no_grad():
            self.embedding.weight.add_(5.0)

    def forward(self, z_e: torch.Tensor) -> Quantized:
        vectors = vectors_of(z_e)
        indices = torch.cdist(vectors, self.embedding.weight).argmin(1)
        z_q = as_map(self.embedding(indices), z_e)
        loss = functional.mse_loss(z_q, z_e.detach()) + 0.25 * functional.mse_loss(z_e, z_q.detach())
        counts = torch.bincount(indices, minlength=CODES).float()
        places = indices.view(len(z_e), *z_e.shape[2:])
        return Quantized(z_e + (z_q - z_e).detach(), places, loss, perplexity_of(counts))


class Task(Digits):
    """The reference model around such codes."""

    def model(self) -> nn.Module:  # type: ignore[override]
        model = super().model()
        model.vq = GradientVQ(8)  # type: ignore[assignment]
        return model


def trained(**remedies: bool) -> LayerFigures:
    task = Task()
    torch.manual_seed(0)
    model = task.model()
    view = QuantizerView(
        name="vq",
        layout="by hand",
        confidence=Confidence.HIGH,
        num_codes=CODES,
        dim=8,
        keys={"codebook": "vq.embedding.weight"},
        load_codebook=lambda: np.zeros((CODES, 8), dtype=np.float32),
    )
    layer = CapturedLayer(
        view=view, model=model, tensors=view.keys, reader=Reader(view=view), path="vq", gap="", maps=True
    )
    plan = TrainingPlan(epochs=8, vq_weight=1.0, **remedies)  # type: ignore[arg-type]
    trainer = Trainer(model=model, task=task, splits=Splits(task, CPU), layers=(layer,), plan=plan)
    trainer.run()
    figures = trainer.figures()
    assert figures is not None
    return figures.layers["vq"]


def test_codes_far_from_z_e_come_into_use_by_it() -> None:
    """Of 512 codes hardly any is chosen without it; k-means and revival are left out of both."""
    plain, matched = trained(), trained(moment_matching=True)
    assert plain.used < 0.1 * CODES
    assert matched.used > 0.4 * CODES
    assert matched.perplexity > 5 * plain.perplexity
