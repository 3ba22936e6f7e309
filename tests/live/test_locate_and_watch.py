"""Finding the VQ layer around a codebook, and watching it, on other people's quantizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from vqdoctor.core.errors import UserError
from vqdoctor.live.locate import candidates
from vqdoctor.live.untouched import TouchedError, untouched, working_copy
from vqdoctor.live.vectors import channel_axis, rows, unrows
from vqdoctor.live.watch import watch


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
    ],
)
def test_channel_axis(shape: tuple[int, ...], dim: int, indices: tuple[int, ...] | None, axis: int) -> None:
    assert channel_axis(shape, dim, indices) == axis


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
