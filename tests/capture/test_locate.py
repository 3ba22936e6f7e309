"""The modules that may be the VQ layer of a codebook, in other people's quantizers."""

from __future__ import annotations

import pytest
from live_models import AutoEncoder
from torch import nn
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from vqdoctor.capture.locate import candidates
from vqdoctor.core.errors import UserError


def test_candidates_climb_through_projections_but_not_into_the_encoder() -> None:
    model = AutoEncoder(VectorQuantize(dim=8, codebook_size=16, codebook_dim=4))
    assert candidates(model, "vq._codebook.embed") == ("vq._codebook", "vq")


def test_candidates_of_one_residual_level_stay_in_that_level() -> None:
    model = AutoEncoder(ResidualVQ(dim=8, codebook_size=16, num_quantizers=2))
    assert candidates(model, "vq.layers.1._codebook.embed") == ("vq.layers.1._codebook", "vq.layers.1")


def test_a_codebook_outside_the_model_is_the_users_error() -> None:
    with pytest.raises(UserError, match="no module 'quantize'"):
        candidates(AutoEncoder(VectorQuantize(dim=8, codebook_size=16)), "quantize.embedding")


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
