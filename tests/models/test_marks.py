"""An examination leaves no mark on the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from live_models import AutoEncoder
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.models.untouched import TouchedError, untouched, working_copy


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
