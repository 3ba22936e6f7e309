"""Finite scalar quantization in the place of a VQ layer: a few levels a channel, and no codebook to collapse.

Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple", arXiv:2309.15505.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from vqdoctor.capture.call import Call, is_integer, swap
from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.models.tensors import tensors_of

MOST_LEVELS = 8
"""Levels of a channel at most: the paper's own choices for up to 2^16 codes have no more."""
_SLACK = 1e-3


def levels_of(num_codes: int) -> tuple[int, ...]:
    """Return the levels of the fewest channels whose product is nearest to a number of codes.

    >>> levels_of(256), levels_of(512)
    ((7, 6, 6), (8, 8, 8))
    """
    channels = max(1, math.ceil(math.log(num_codes) / math.log(MOST_LEVELS) - 1e-9))
    low = max(2, int(num_codes ** (1 / channels) + 1e-9))
    found = [(low + 1,) * more + (low,) * (channels - more) for more in range(channels + 1)]
    return min(found, key=lambda levels: abs(math.prod(levels) - num_codes))


class FiniteScalar(nn.Module):
    """Rounds each channel of [..., channels] to its levels; the gradient passes as if it had not.

    Attributes:
        levels: levels of each channel.
    """

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = levels
        sizes = torch.tensor(levels, dtype=torch.float32)
        basis = torch.tensor([math.prod(levels[:at]) for at in range(len(levels))])
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the levels, float [..., channels] in [-1, 1], and the codes, int64 [...]."""
        sizes = self.get_buffer("sizes").to(z.dtype)
        half, offset = (sizes - 1) * (1 + _SLACK) / 2, (sizes % 2 == 0).to(z.dtype) / 2
        bounded = torch.tanh(z + torch.atanh(offset / half)) * half - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        width = torch.div(sizes, 2, rounding_mode="floor")
        place = (rounded.detach() + width).round().long()
        return rounded / width, (place * self.get_buffer("basis")).sum(dim=-1)


class InItsPlace(nn.Module):
    """A finite scalar quantizer that is called, and answers, as the VQ layer in whose place it stands.

    A linear map goes before it and another one after it, since it has a few channels. The losses that the
    VQ layer returned are zero.

    Attributes:
        fsq: the quantizer.
        axis: axis of z_e with the vectors' elements.
    """

    def __init__(self, call: Call, axis: int, num_codes: int) -> None:
        super().__init__()
        assert call.z_q is not None
        levels, self.axis = levels_of(num_codes), axis
        self.project_in = nn.Linear(call.z_e.shape[axis], len(levels))
        self.fsq = FiniteScalar(levels)
        self.project_out = nn.Linear(len(levels), call.z_q.shape[axis])
        self._answer, self._z_q = call.output, call.z_q

    def forward(self, z_e: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Return the VQ layer's answer, with the quantizer's z_q and codes in it."""
        rounded, codes = self.fsq(self.project_in(z_e.movedim(self.axis, -1)))
        answer = swap(self._answer, self._z_q, self.project_out(rounded).movedim(-1, self.axis))
        for tensor in tensors_of(self._answer):
            if is_integer(tensor) and tensor.ndim and tensor.shape[1:].numel() == codes[0].numel():
                answer = swap(answer, tensor, codes.reshape(-1, *tensor.shape[1:]))
            elif tensor.is_floating_point() and tensor.numel() == 1:
                answer = swap(answer, tensor, torch.zeros_like(tensor))
        return answer


def replace_layers(model: nn.Module, layers: Iterable[tuple[CapturedLayer, Call]]) -> nn.Module:
    """Put a finite scalar quantizer in the place of every layer of a model, which is changed.

    Args:
        model: the model.
        layers: its layers, each with one of its calls.
    """
    for layer, call in layers:
        assert layer.path is not None
        parent, _, name = layer.path.rpartition(".")
        new = InItsPlace(call, layer.reader.axis(call), layer.num_codes)
        setattr(model.get_submodule(parent), name, new)
    return model
