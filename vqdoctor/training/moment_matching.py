"""Moving all codes at once, so that their mean and covariance become those of the vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from vqdoctor.capture.layer import CapturedLayer, Watched

VECTORS_PER_DIMENSION = 16
"""Vectors for each dimension of a code before their moments are used: their covariance is then known to
half its size in the worst direction (2 √(D / N) of it: Vershynin 2012)."""
SHARE = 0.5
"""Share of the way to their places that codes go at a time: batches differ, and the model has to follow."""
_TINY = 1e-10
"""Spread of the codes in one direction, as a share of their largest, under which there is none to stretch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Mean [D] and covariance [D, D] of vectors, float64 on the CPU."""

    mean: torch.Tensor
    covariance: torch.Tensor

    @classmethod
    def of(cls, vectors: torch.Tensor) -> Moments:
        """Return the moments of vectors [N, D]."""
        vectors = vectors.detach().double().cpu()
        mean = vectors.mean(dim=0)
        centred = vectors - mean
        return cls(mean=mean, covariance=centred.T @ centred / len(vectors))


def wasserstein(one: Moments, other: Moments) -> float:
    """Return the squared 2-Wasserstein distance of two Gaussians with these moments.

    |m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁^½ C₂ C₁^½)^½), Givens and Shortt 1984.
    """
    root = _power(one.covariance, 0.5)
    middle = _power(root @ other.covariance @ root, 0.5)
    shift = (one.mean - other.mean).square().sum()
    return float(shift + torch.trace(one.covariance + other.covariance - 2 * middle))


def transported(codes: torch.Tensor, target: Moments) -> torch.Tensor:
    """Return the codes where the optimal map between the two Gaussians takes them, [K, D].

    m₂ + A (c − m₁) with A = C₁^−½ (C₁^½ C₂ C₁^½)^½ C₁^−½: the codes then have the target's mean and
    covariance. The gradient of `wasserstein` by a code c is 2/K (c − its place), so a step towards that
    place is a step of gradient descent. Directions in which the codes do not differ stay without spread.
    """
    own = Moments.of(codes)
    root, inverse = _power(own.covariance, 0.5), _power(own.covariance, -0.5)
    stretch = inverse @ _power(root @ target.covariance @ root, 0.5) @ inverse
    moved = target.mean + (codes.detach().double().cpu() - own.mean) @ stretch
    return moved.to(codes)


def _power(matrix: torch.Tensor, exponent: float) -> torch.Tensor:
    """Return a power of a symmetric matrix without negative eigenvalues; zero stays zero."""
    values, vectors = torch.linalg.eigh(matrix)
    there = values > _TINY * values[-1].clamp_min(0)
    powers = torch.where(there, values.clamp_min(torch.finfo(values.dtype).tiny) ** exponent, 0.0)
    found: torch.Tensor = (vectors * powers) @ vectors.T
    return found


class MomentMatching:
    """Moves the codes of one layer towards the moments of its vectors while the model trains."""

    def __init__(self, layer: CapturedLayer) -> None:
        self._layer = layer
        self._seen: list[torch.Tensor] = []

    @torch.no_grad()
    def after_step(self, watched: Watched) -> None:
        """Take a batch's vectors into account, and move the codes once there are enough."""
        vectors = self._layer.vectors(watched)
        if vectors is None:
            return
        self._seen.append(vectors[torch.isfinite(vectors).all(dim=1)].cpu())
        if sum(map(len, self._seen)) < VECTORS_PER_DIMENSION * vectors.shape[1]:
            return
        codes = self._layer.codes()
        moved = codes.lerp(transported(codes, Moments.of(torch.cat(self._seen))), SHARE)
        self._seen.clear()
        self._layer.write(torch.arange(self._layer.num_codes), moved)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        return {"seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._seen = list(state["seen"])
