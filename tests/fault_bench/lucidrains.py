"""vector-quantize-pytorch: VectorQuantize with Euclidean and with cosine codes, and ResidualVQ."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from fault_bench.quantizer import Implementation, Quantized, Table
from fault_bench.setup import Setup

LEVELS = 3


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
