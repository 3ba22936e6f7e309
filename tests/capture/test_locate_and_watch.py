"""Finding the VQ layer around a codebook, and watching it, on other people's quantizers."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from vqdoctor.capture.locate import candidates
from vqdoctor.capture.vectors import channel_axis, rows, unrows
from vqdoctor.capture.watch import watch
from vqdoctor.core.errors import UserError
from vqdoctor.models.untouched import TouchedError, untouched, working_copy


class AutoEncoder(nn.Module):
    """Linear encoder and decoder around any quantizer of [B, N, D]."""

    def __init__(self, vq: nn.Module, dim: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, dim)
        self.vq = vq
        self.decoder = nn.Linear(dim, 3)

    def forward(self, x: torch.Tensor) -> Any:
        z_q, *rest = self.vq(self.encoder(x))
        return self.decoder(z_q), *rest


def test_candidates_climb_through_projections_but_not_into_the_encoder() -> None:
    model = AutoEncoder(VectorQuantize(dim=8, codebook_size=16, codebook_dim=4))
    assert candidates(model, "vq._codebook.embed") == ("vq._codebook", "vq")


def test_candidates_of_one_residual_level_stay_in_that_level() -> None:
    model = AutoEncoder(ResidualVQ(dim=8, codebook_size=16, num_quantizers=2))
    assert candidates(model, "vq.layers.1._codebook.embed") == ("vq.layers.1._codebook", "vq.layers.1")


def test_a_codebook_outside_the_model_is_the_users_error() -> None:
    with pytest.raises(UserError, match="no module 'quantize'"):
        candidates(AutoEncoder(VectorQuantize(dim=8, codebook_size=16)), "quantize.embedding")


def test_watch_sees_z_e_z_q_and_indices() -> None:
    torch.manual_seed(0)
    model = AutoEncoder(VectorQuantize(dim=8, codebook_size=16)).eval()
    x = torch.randn(2, 5, 3)
    with watch(model.vq) as seen:
        model(x)
    call = seen.last
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
    v = torch.randn_like(seen.last.z_q)
    assert torch.equal(torch.autograd.grad(seen.last.z_q, seen.last.z_e, v)[0], v)


@pytest.mark.parametrize(
    ("shape", "dim", "indices", "axis"),
    [
        ((2, 5, 8), 8, (2, 5), 2),
        ((2, 8, 5), 8, (2, 5), 1),
        ((2, 8, 4, 4), 8, (2, 4, 4), 1),
        ((2, 8, 8, 8), 8, None, 3),
        ((2, 8, 8, 8), 8, (2, 8, 8), 3),
        ((7, 8), 8, (7,), 1),
        ((2, 5, 9), 8, (2, 5), 2),
        ((2, 8, 5, 5), 4, (2, 5, 5, 2), 1),
        ((2, 9, 5, 5), 8, (50,), 1),
        ((2, 9, 5, 5), 8, None, 1),
    ],
)
def test_channel_axis(shape: tuple[int, ...], dim: int, indices: tuple[int, ...] | None, axis: int) -> None:
    assert channel_axis(shape, dim, indices) == axis


def test_of_axes_of_one_length_the_one_along_which_codes_repeat() -> None:
    codes = torch.randn(5, 8)[torch.randint(5, (2, 8, 8))]
    assert channel_axis((2, 8, 8, 8), 8, (128,), codes) == 3
    assert channel_axis((2, 8, 8, 8), 8, (128,), codes.permute(0, 3, 1, 2)) == 1
    assert channel_axis((2, 6, 8), 6, None, torch.randn(2, 6, 12)) == 2


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_unrows_inverts_rows(axis: int) -> None:
    tensor = torch.randn(2, 3, 4, 5)
    assert torch.equal(unrows(rows(tensor, axis), tensor.shape, axis), tensor)


def test_untouched_restores_the_random_state_and_accepts_a_clean_examination() -> None:
    model = AutoEncoder(VectorQuantize(dim=8, codebook_size=16))
    before = torch.get_rng_state()
    with untouched(model, seed=3):
        working_copy(model, training=True)(torch.randn(2, 5, 3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "touch",
    [
        lambda m: m.train()(torch.randn(2, 5, 3)),  # moves the EMA
        lambda m: m.eval(),
        lambda m: m.vq.register_forward_hook(lambda *_: None),
        lambda m: m.decoder.bias.data.add_(1e-6),
        lambda m: m.decoder(torch.randn(1, 8)).sum().backward(),
        lambda m: m.encoder.requires_grad_(False),
    ],
)
def test_untouched_notices_every_mark(touch: Any) -> None:
    model = AutoEncoder(VectorQuantize(dim=8, codebook_size=16)).train()
    with pytest.raises(TouchedError), untouched(model, seed=0):
        touch(model)


def test_a_model_that_is_a_vq_layer_itself_is_a_candidate() -> None:
    assert candidates(VectorQuantize(dim=8, codebook_size=16), "_codebook.embed") == ("_codebook", "")


def test_a_weight_normed_projection_is_a_projection() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.in_proj = nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 4, 1))
            self.codebook = nn.Embedding(16, 4)

    model = nn.ModuleDict({"quantizers": nn.ModuleList([Projected()]), "wide": nn.Conv1d(8, 8, 3)})
    key = "quantizers.0.codebook.weight"
    assert candidates(model, key) == ("quantizers.0.codebook", "quantizers.0")


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
    assert torch.equal(seen.last.indices, torch.cdist(z, layer.codes.expand(2, -1, -1)).argmin(-1))
    assert torch.equal(seen.last.z_q, take(layer(z=z)))


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
    (own,) = seen.last.losses
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
    (codes,) = seen.last.integers
    assert torch.equal(codes, (z.sum(-1) > 0).long().flatten())
