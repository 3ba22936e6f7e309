from __future__ import annotations

import math

import pytest
import torch
from scipy.special import softmax

from vqdoctor.training.usage_entropy import TEMPERATURE, usage_entropy

CODES = 10.0 * torch.eye(8)


def test_an_even_use_is_one_and_one_code_alone_is_nothing() -> None:
    assert float(usage_entropy(CODES.repeat(5, 1), CODES)) == pytest.approx(1.0, abs=1e-3)
    assert float(usage_entropy(CODES[:1].repeat(40, 1), CODES)) == pytest.approx(0.0, abs=1e-3)
    assert float(usage_entropy(CODES, CODES[:1])) == 0.0


def test_it_is_the_entropy_of_the_mean_assignment() -> None:
    vectors, codes = torch.randn(30, 4, dtype=torch.float64), torch.randn(12, 4, dtype=torch.float64)
    distances = ((vectors[:, None] - codes) ** 2).sum(-1)
    scale = TEMPERATURE * distances.std(1, keepdim=True)
    mean = softmax((-distances / scale).numpy(), axis=1).mean(0)
    assert float(usage_entropy(vectors, codes)) == pytest.approx(-(mean * _log(mean)).sum() / math.log(12))


def _log(mean: object) -> torch.Tensor:
    return torch.as_tensor(mean).clamp_min(1e-300).log().numpy()  # type: ignore[return-value]


def test_it_does_not_depend_on_the_scale_or_the_place_of_both() -> None:
    vectors, codes = torch.randn(30, 4, dtype=torch.float64), torch.randn(12, 4, dtype=torch.float64)
    moved = usage_entropy(100 * vectors + 7, 100 * codes + 7)
    assert float(moved) == pytest.approx(float(usage_entropy(vectors, codes)))


def test_vectors_that_follow_it_use_more_codes() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(16, 4, generator=generator)
    vectors = (codes[3] + torch.randn(200, 4, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([vectors], lr=0.05)
    used = []
    for _ in range(60):
        used.append(len(torch.cdist(vectors, codes).argmin(1).unique()))
        optimizer.zero_grad()
        (-usage_entropy(vectors, codes)).backward()
        optimizer.step()
    assert used[-1] > used[0]
