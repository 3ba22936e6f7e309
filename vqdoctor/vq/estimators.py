"""Gradient estimators that are put behind a VQ layer from outside: same values, another gradient."""

from __future__ import annotations

import torch

_TINY = 1e-6


def straight_through(z_e: torch.Tensor, z_q: torch.Tensor) -> torch.Tensor:
    """Return z_q with the gradient of z_e: z_e + (z_q − z_e) without the gradient of the bracket.

    Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons".

    Args:
        z_e: the layer's input, of any shape.
        z_q: the layer's output, of that shape.
    """
    return z_e + (z_q - z_e).detach()


def rotation(z_e: torch.Tensor, z_q: torch.Tensor, axis: int) -> torch.Tensor:
    """Return z_q with the gradient turned by the rotation, and scaled as the lengths, from z_e to z_q.

    Fifty et al. 2024, "Restructuring Vector Quantization with the Rotation Trick", equation 4: with unit
    vectors e, q and r = (e + q) / ‖e + q‖, the rotation of v is v − 2 r (r·v) + 2 q (e·v).

    Args:
        z_e: the layer's input, of any shape.
        z_q: the layer's output, of that shape.
        axis: the axis of the vectors' elements.
    """
    with torch.no_grad():
        before = z_e.norm(dim=axis, keepdim=True).clamp_min(_TINY)
        after = z_q.norm(dim=axis, keepdim=True)
        e, q = z_e / before, z_q / after.clamp_min(_TINY)
        r = e + q
        r = r / r.norm(dim=axis, keepdim=True).clamp_min(_TINY)
        scale = after / before
    along_r = (r * z_e).sum(dim=axis, keepdim=True)
    along_e = (e * z_e).sum(dim=axis, keepdim=True)
    turned: torch.Tensor = scale * (z_e - 2 * r * along_r + 2 * q * along_e)
    return turned + (z_q - turned).detach()
