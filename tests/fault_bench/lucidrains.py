"""vector-quantize-pytorch: VectorQuantize in all its forms, residual, grouped, SimVQ, FSQ, LFQ."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import FSQ, LFQ, GroupedResidualVQ, ResidualVQ, SimVQ, VectorQuantize

from fault_bench.quantizer import Implementation, Quantized, Table
from fault_bench.setup import Setup

LEVELS = 3
GROUPS = 2
NO_TABLE = frozenset({"data_init", "distinct", "revival", "codes", "codebook_decay"})
"""Settings that mean nothing where no codes are stored that could be placed."""
SLOW = {"vq_weight": 1.0, "steps": 400, "codes": 64}
"""Settings of layers that need a full VQ loss and more steps until their codes are in use."""
NO_LOSS = frozenset({"vq_weight", "averaged", "vq_in_loss", "loss_has_gradient", "beta"})
"""Settings that mean nothing where there is no VQ loss."""


class Unguarded(VectorQuantize):
    """Trains its codebook whatever the mode."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self._codebook.train()
        return super().forward(*args, **kwargs)


class CodesOnASphere(VectorQuantize):
    """Puts its codes on the unit sphere after each update, and looks its vectors up as they are."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = super().forward(*args, **kwargs)
        if self.training:
            embed = self._codebook.embed
            embed.data.copy_(functional.normalize(embed.data, dim=-1))
        return found


class Logged(VectorQuantize):
    """Returns its loss as a number to log."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        z_q, indices, loss = super().forward(*args, **kwargs)
        return z_q, indices, loss.detach()


class ShortOfALevel(ResidualVQ):
    """Level dropout that draws from a range one too short, so that training never sees the last level."""

    def forward(self, x: torch.Tensor, **kwargs: Any) -> Any:
        levels = self.layers
        if self.training:
            self.layers = levels[:-1]
            self.num_quantizers = len(self.layers)
        found = super().forward(x, **kwargs)
        self.layers, self.num_quantizers = levels, len(levels)
        return found


def _settings(setup: Setup) -> dict[str, Any]:
    one_place = (
        16  # positions of a sample; a tenth of the mean count, as the library asks for an absolute one
    )
    relative = 0.1 * setup.batch * one_place / setup.codes if setup.revival else 0.0
    return {
        "dim": setup.dim,
        "codebook_size": setup.codes,
        "decay": setup.decay,
        "kmeans_init": setup.data_init and not setup.distinct,
        "threshold_ema_dead_code": setup.threshold or relative,
        "ema_update": setup.codebook_trained,
        "orthogonal_reg_weight": 0.0 if setup.one_writer else 10.0,
    }


def euclidean(setup: Setup, **more: Any) -> nn.Module:
    kind = VectorQuantize if setup.guarded else Unguarded
    kind = CodesOnASphere if setup.sphere == "codes" else kind if setup.loss_has_gradient else Logged
    return kind(**_settings(setup), route_gradients_to_input=setup.straight_through, **more)


def residual(setup: Setup) -> nn.Module:
    kind = ResidualVQ if setup.every_level else ShortOfALevel
    return kind(num_quantizers=LEVELS, route_gradients_to_input=setup.straight_through, **_settings(setup))


def by_gradient(setup: Setup) -> nn.Module:
    """Return a layer whose codes the optimizer moves; its trainer places and revives them."""
    settings = _settings(setup) | {
        "learnable_codebook": setup.codebook_trained,
        "ema_update": False,
        "kmeans_init": False,
        "threshold_ema_dead_code": 0,
    }
    return VectorQuantize(**settings, route_gradients_to_input=setup.straight_through)


def grouped(setup: Setup) -> nn.Module:
    return GroupedResidualVQ(
        groups=GROUPS,
        num_quantizers=2,
        route_gradients_to_input=setup.straight_through,
        **_settings(setup),
    )


class SimVQWithoutEstimator(SimVQ):
    """Returns the codes alone."""

    def forward(self, x: torch.Tensor) -> Any:
        _, indices, loss = super().forward(x)
        return self.indices_to_codes(indices), indices, loss


def linear(setup: Setup) -> nn.Module:
    kind = SimVQ if setup.straight_through else SimVQWithoutEstimator
    return kind(dim=setup.dim, codebook_size=setup.codes)


def binary(setup: Setup) -> nn.Module:
    return LFQ(dim=setup.dim, codebook_size=setup.codes, commitment_loss_weight=0.25)


def scalar(setup: Setup) -> nn.Module:
    return FSQ(levels=[5, 5, 4], dim=setup.dim)


def quantize_without_loss(vq: nn.Module, z: torch.Tensor) -> Quantized:
    z_q, _ = vq(z.flatten(2).transpose(1, 2))
    return z_q.transpose(1, 2).reshape(z.shape), z.new_zeros(())


def quantize(vq: nn.Module, z: torch.Tensor) -> Quantized:
    vectors = z.flatten(2).transpose(1, 2)
    z_q, _, loss = vq(vectors)
    return z_q.transpose(1, 2).reshape(z.shape), loss.float().sum()


def table(vq: nn.Module) -> Table:
    book = vq._codebook
    return Table(codes=book.embed.data[0], counts=book.cluster_size[0], sums=book.embed_avg[0])


_EMA = {
    "straight_through",
    "codebook_trained",
    "one_writer",
    "decay",
    "threshold",
    "sums_written",
    "flag_saved",
}
EUCLIDEAN = Implementation(
    name="VectorQuantize",
    build=euclidean,
    quantize=quantize,
    tables=lambda vq: [table(vq)],
    switches=frozenset(_EMA | {"guarded", "loss_has_gradient"}),
    starts_itself=True,
    volatile=("initted",),
)
COSINE = Implementation(
    name="VectorQuantize-cosine",
    build=lambda setup: euclidean(setup, use_cosine_sim=True),
    quantize=quantize,
    tables=lambda vq: [table(vq)],
    switches=frozenset(),
    starts_itself=True,
)
RESIDUAL = Implementation(
    name="ResidualVQ",
    build=residual,
    quantize=quantize,
    tables=lambda vq: [table(level) for level in vq.layers],
    switches=frozenset(_EMA | {"every_level"}),
    starts_itself=True,
    volatile=("initted",),
)
BY_GRADIENT = Implementation(
    name="VectorQuantize-gradient",
    build=by_gradient,
    quantize=quantize,
    tables=lambda vq: [Table(codes=vq._codebook.embed.data[0])],
    switches=frozenset({"straight_through", "codebook_trained", "codebook_decay"}),
    kind="gradient",
)
GROUPED = Implementation(
    name="GroupedResidualVQ",
    build=grouped,
    quantize=quantize,
    tables=lambda vq: [table(level) for group in vq.rvqs for level in group.layers],
    switches=frozenset({"straight_through", "codebook_trained", "decay", "threshold"}),
    starts_itself=True,
    lacks=frozenset({"distinct"}),
)
LINEAR = Implementation(
    name="SimVQ",
    build=linear,
    quantize=quantize,
    tables=lambda vq: [],
    switches=frozenset({"straight_through"}),
    kind="gradient",
    lacks=NO_TABLE - {"codes"},
    usual=SLOW,
)
BINARY = Implementation(
    name="LFQ",
    build=binary,
    quantize=quantize,
    tables=lambda vq: [],
    switches=frozenset(),
    kind="none",
    lacks=NO_TABLE - {"codes"},
    usual=SLOW,
)
SCALAR = Implementation(
    name="FSQ",
    build=scalar,
    quantize=quantize_without_loss,
    tables=lambda vq: [],
    switches=frozenset(),
    kind="none",
    lacks=NO_TABLE | NO_LOSS,
    has_loss=False,
)
