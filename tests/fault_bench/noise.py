"""nsvq: noise in place of the straight-through estimator, no VQ loss, and its own replacement of codes."""

from __future__ import annotations

import torch
from nsvq import NSVQ
from torch import nn

from fault_bench.lucidrains import NO_LOSS
from fault_bench.quantizer import Implementation, Quantized, Table
from fault_bench.setup import Setup


def build(setup: Setup) -> nn.Module:
    return NSVQ(
        setup.codes,
        setup.dim,
        replacement_iters=50,
        allow_warning=False,
        verbose=False,
        codebook_reset=setup.revival,
    )


def quantize(vq: nn.Module, z: torch.Tensor) -> Quantized:
    vectors = z.movedim(1, -1)
    flat = vectors.reshape(-1, z.shape[1])
    z_q, *_ = vq(flat) if vq.training else vq.inference(flat)  # as its README tells
    return z_q.view(vectors.shape).movedim(-1, 1), z.new_zeros(())


IMPLEMENTATION = Implementation(
    name="NSVQ",
    build=build,
    quantize=quantize,
    tables=lambda vq: [Table(codes=vq.codebook.data)],
    switches=frozenset({"codebook_decay"}),
    kind="gradient",
    lacks=NO_LOSS,
    has_loss=False,
)
