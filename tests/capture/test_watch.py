"""Watching a VQ layer at work, and changing what the model gets, in other people's quantizers."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from live_models import AutoEncoder
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.capture.watch import watch


def test_watch_sees_z_e_z_q_and_indices() -> None:
    torch.manual_seed(0)
    model = AutoEncoder(VectorQuantize(dim=8, codebook_size=16)).eval()
    x = torch.randn(2, 5, 3)
    with watch(model.vq) as seen:
        model(x)
    call = seen.calls[-1]
    assert torch.equal(call.z_e, model.encoder(x).detach())
    assert call.z_q is not None and call.indices is not None
    assert torch.equal(call.z_q, model.vq.codebook[call.indices])
    assert not model.vq._forward_hooks and not model.vq._forward_pre_hooks


def test_watch_changes_what_the_rest_of_the_model_gets() -> None:
    model = AutoEncoder(VectorQuantize(dim=8, codebook_size=16)).eval()
    x = torch.randn(2, 5, 3)
    with watch(model.vq, change=lambda call: call.z_e):
        bypassed = model(x)[0]
    assert torch.allclose(bypassed, model.decoder(model.encoder(x)))


def test_a_frozen_encoder_still_gives_a_gradient_at_z_e() -> None:
    model = AutoEncoder(VectorQuantize(dim=8, codebook_size=16, rotation_trick=False)).train()
    model.encoder.requires_grad_(False)
    with watch(model.vq, keep_graph=True) as seen:
        model(torch.randn(2, 5, 3))
    v = torch.randn_like(seen.calls[-1].z_q)
    assert torch.equal(torch.autograd.grad(seen.calls[-1].z_q, seen.calls[-1].z_e, v)[0], v)


@dataclasses.dataclass
class Output:
    latents: torch.Tensor
    info: dict[str, Any]


class Named(NamedTuple):
    indices: torch.Tensor
    z_q: torch.Tensor


class Holder(nn.Module):
    """A quantizer whose output is in a container of the caller's choice."""

    def __init__(self, contain: Any) -> None:
        super().__init__()
        self.contain, self.codes = contain, nn.Parameter(torch.randn(5, 3))

    def forward(self, *, z: torch.Tensor) -> Any:
        indices = torch.cdist(z.flatten(0, 1), self.codes).argmin(1).view(z.shape[:2])
        q = self.codes[indices]
        return self.contain(z + (q - z).detach(), indices)


@pytest.mark.parametrize(
    ("contain", "take"),
    [
        (lambda q, i: Output(latents=q, info={"indices": i}), lambda out: out.latents),
        (lambda q, i: Named(i, q), lambda out: out.z_q),
        (lambda q, i: {"ids": i, "quantized": [q]}, lambda out: out["quantized"][0]),
        (lambda q, i: OrderedDict(ids=i, quantized=q), lambda out: out["quantized"]),
    ],
    ids=["dataclass", "namedtuple", "nested dict", "mapping"],
)
def test_any_container_is_looked_into_and_given_back(contain: Any, take: Any) -> None:
    layer, z = Holder(contain), torch.randn(2, 4, 3)
    with watch(layer, change=lambda call: torch.zeros_like(call.z_q)) as seen:
        out = layer(z=z)
    assert type(out) is type(layer(z=z)) and not take(out).any()
    assert torch.equal(seen.calls[-1].indices, torch.cdist(z, layer.codes.expand(2, -1, -1)).argmin(-1))
    assert torch.equal(seen.calls[-1].z_q, take(layer(z=z)))


class Methods(nn.Module):
    """A quantizer that is never called: a codec uses its `encode` and `decode`."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(5, 3))

    def quantize(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cdist(z, self.codes).argmin(1)

    def encode(self, z: torch.Tensor) -> torch.Tensor:
        return self.quantize(z.flatten(0, -2)).view(z.shape[:-1])

    def decode(self, indices: torch.Tensor) -> torch.Tensor:
        return self.codes[indices]


def test_a_layer_is_seen_through_its_methods() -> None:
    layer, z = Methods(), torch.randn(2, 4, 3)
    with watch(layer, change=lambda call: 2 * call.z_e) as seen:
        out = layer.decode(layer.encode(z))
        again = layer.decode(layer.quantize(torch.randn(6, 3)))
    assert torch.equal(out, 2 * z) and again.shape == (6, 3)
    first, second = seen.calls
    assert torch.equal(first.z_e, z) and torch.equal(first.z_q, layer.codes[first.indices])
    assert first.indices.shape == (2, 4) and second.indices.shape == (6,)
    assert seen.by_method and "encode" not in vars(layer)


def test_the_layers_own_losses_are_kept_with_their_graph() -> None:
    model = AutoEncoder(VectorQuantize(dim=8, codebook_size=16)).train()
    with watch(model.vq, keep_graph=True) as seen:
        loss = model(torch.randn(2, 5, 3))[2]
    (own,) = seen.calls[-1].losses
    assert own is loss and own.requires_grad


class OneHot(nn.Module):
    """Tells its codes as zalando's notebook does: as rows of zeros and a one."""

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        codes = (z.sum(-1) > 0).long().flatten()
        encodings = nn.functional.one_hot(codes, 6).float()
        return z + 0.1, encodings.mean(0), encodings, encodings / 2


def test_codes_are_read_from_one_hot_rows() -> None:
    z = torch.randn(2, 5, 3)
    layer = OneHot()
    with watch(layer) as seen:
        layer(z)
    (codes,) = seen.calls[-1].integers
    assert torch.equal(codes, (z.sum(-1) > 0).long().flatten())
