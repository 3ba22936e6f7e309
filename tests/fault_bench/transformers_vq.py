"""transformers' quantizers in a user's training: DAC's, Chameleon's, Mimi's, wav2vec 2.0's."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers import DacConfig, MimiConfig, Wav2Vec2Config
from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAEVectorQuantizer
from transformers.models.dac.modeling_dac import DacResidualVectorQuantizer, DacVectorQuantize
from transformers.models.mimi.modeling_mimi import MimiEuclideanCodebook
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

from fault_bench.ema import commitment
from fault_bench.lucidrains import NO_LOSS, NO_TABLE
from fault_bench.quantizer import Implementation, Quantized, Table, as_map
from fault_bench.setup import Setup

BETA = 0.25


class DacWithoutEstimator(DacVectorQuantize):
    """A level that returns its codes alone."""

    def forward(self, hidden_state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        _, pull, follow, indices, latents = super().forward(hidden_state)
        codes, _ = self.decode_latents(latents)
        return self.out_proj(codes), pull, follow, indices, latents


def build_dac(setup: Setup) -> nn.Module:
    config = DacConfig(
        hidden_size=setup.dim, codebook_size=setup.codes, codebook_dim=8, n_codebooks=2, quantizer_dropout=0.0
    )
    layer = DacResidualVectorQuantizer(config)
    if not setup.straight_through:
        layer.quantizers = nn.ModuleList(DacWithoutEstimator(config) for _ in layer.quantizers)
    return layer


def quantize_dac(vq: nn.Module, z: torch.Tensor) -> Quantized:
    z_q, _, _, pull, follow = vq(z.flatten(2))
    return z_q.reshape(z.shape), (BETA * pull + follow).mean()


class ChangedChameleon(ChameleonVQVAEVectorQuantizer):
    """A user's version: another estimator around the library's lookup, or no loss on the codes."""

    def __init__(self, config: ChameleonVQVAEConfig, setup: Setup) -> None:
        super().__init__(config)
        self.setup = setup

    def forward(self, hidden_state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z_q, loss, indices = super().forward(hidden_state)
        codes = self.embedding(indices).view(hidden_state.movedim(1, -1).shape).movedim(-1, 1)
        if not self.setup.codebook_trained:  # both terms are computed on what the estimator returns
            loss = functional.mse_loss(hidden_state, codes.detach())
        return (z_q if self.setup.straight_through else codes), loss, indices


def build_chameleon(setup: Setup) -> nn.Module:
    config = ChameleonVQVAEConfig(num_embeddings=setup.codes, embed_dim=setup.dim)
    if setup.straight_through and setup.codebook_trained:
        return ChameleonVQVAEVectorQuantizer(config)
    return ChangedChameleon(config, setup)


def quantize_map(vq: nn.Module, z: torch.Tensor) -> Quantized:
    z_q, loss, _ = vq(as_map(z))
    return z_q.reshape(z.shape), loss


class TrainedMimi(nn.Module):
    """A user's training of Mimi's codebook: the library holds the sums and counts and only looks up."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup
        self.codebook = MimiEuclideanCodebook(MimiConfig(codebook_size=setup.codes, codebook_dim=setup.dim))
        self.codebook.embed_sum.normal_()

    def forward(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Quantize [B, N, D]."""
        indices = self.codebook.encode(vectors)
        codes = self.codebook.decode(indices)
        if (self.training or not self.setup.guarded) and self.setup.codebook_trained:
            self._follow(vectors.detach().reshape(-1, self.setup.dim), indices.flatten())
        z_q = vectors + (codes - vectors).detach() if self.setup.straight_through else codes
        return z_q, commitment(self.setup, vectors, codes), indices

    @torch.no_grad()
    def _follow(self, vectors: torch.Tensor, indices: torch.Tensor) -> None:
        hits = torch.bincount(indices, minlength=self.setup.codes).to(vectors.dtype)
        new = torch.zeros_like(self.codebook.embed_sum).index_add_(0, indices, vectors)
        self.codebook.cluster_usage.lerp_(hits, 1 - self.setup.decay)
        self.codebook.embed_sum.lerp_(new, 1 - self.setup.decay)
        self.codebook._embed = None  # the library keeps the quotient


def quantize_mimi(vq: nn.Module, z: torch.Tensor) -> Quantized:
    z_q, loss, _ = vq(z.flatten(2).transpose(1, 2))
    return z_q.transpose(1, 2).reshape(z.shape), loss


def mimi_tables(vq: nn.Module) -> list[Table]:
    book = vq.codebook
    return [Table(codes=book.embed, counts=book.cluster_usage, sums=book.embed_sum)]


GUMBEL_GROUPS = 2


def build_gumbel(setup: Setup) -> nn.Module:
    layer = Wav2Vec2GumbelVectorQuantizer(
        Wav2Vec2Config(
            conv_dim=(setup.dim,) * 7,
            codevector_dim=setup.dim,
            num_codevector_groups=GUMBEL_GROUPS,
            num_codevectors_per_group=setup.codes // GUMBEL_GROUPS,
        )
    )
    # as the library's own model starts it
    nn.init.normal_(layer.weight_proj.weight, std=1.0)
    nn.init.zeros_(layer.weight_proj.bias)
    nn.init.uniform_(layer.codevectors)
    return layer


def quantize_gumbel(vq: nn.Module, z: torch.Tensor) -> Quantized:
    z_q, perplexity = vq(z.flatten(2).transpose(1, 2))
    most = vq.num_groups * vq.num_vars
    return z_q.transpose(1, 2).reshape(z.shape), (most - perplexity) / most


DAC = Implementation(
    name="DAC",
    build=build_dac,
    quantize=quantize_dac,
    tables=lambda vq: [],
    switches=frozenset({"straight_through"}),
    kind="gradient",
    lacks=NO_TABLE - {"codes"},
    usual={"vq_weight": 0.05, "steps": 400, "codes": 32},
)
CHAMELEON = Implementation(
    name="Chameleon",
    build=build_chameleon,
    quantize=quantize_map,
    tables=lambda vq: [Table(codes=vq.embedding.weight.data)],
    switches=frozenset({"straight_through", "codebook_trained", "codebook_decay"}),
    kind="gradient",
)
MIMI = Implementation(
    name="Mimi",
    build=TrainedMimi,
    quantize=quantize_mimi,
    tables=mimi_tables,
    switches=frozenset({"straight_through", "codebook_trained", "decay", "guarded", "loss_has_gradient"}),
)
GUMBEL = Implementation(
    name="wav2vec 2.0 Gumbel",
    build=build_gumbel,
    quantize=quantize_gumbel,
    tables=lambda vq: [],
    switches=frozenset(),
    kind="none",
    lacks=NO_TABLE | NO_LOSS,
)
