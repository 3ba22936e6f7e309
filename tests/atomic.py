"""A public test of codebooks by themselves: vectors from N(mu, 1) in 8 dimensions, codes from N(0, 1).

Fang et al. 2025, Enhancing Vector Quantization with Distributional Matching, arXiv:2506.15078: 16,384 codes,
2,000 steps of 50,000 fresh vectors, and 200,000 others to judge by. What their methods reached stands in
`PUBLISHED`. Here the codes get the remedies of a retraining: k-means on the vectors of the first step, then
steps of EMA with the revival of dead codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from small_training import reference_layer
from torch import nn

from vqdoctor.capture.layer import watching
from vqdoctor.core.evidence import ACTIVE_SHARE
from vqdoctor.reference.quantizer import VectorQuantizerEMA2D, perplexity_of
from vqdoctor.training.revival import Revival
from vqdoctor.vq.kmeans import codes_from_data, nearest

DIM = 8
DECAY = 0.9
"""The EMA decay of the public test."""
MEANS = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0)
PUBLISHED = {
    "vanilla": ((99.7, 14_789), (49, 4_245), (6.5, 600), (0.6, 61), (0, 2), (0, 1)),
    "EMA": ((100, 14_736), (75, 11_266), (14, 2_207), (2.7, 434), (0.4, 60), (0.1, 13)),
    "online": ((99.9, 14_880), (99, 13_351), (80, 11_920), (49, 7_500), (25, 3_873), (23, 3_618)),
    "linear": ((99, 14_570), (99.5, 14_587), (99, 14_566), (99, 14_570), (15, 1_417), (8, 697)),
    "moments": (
        (99.8, 14_883), (99.8, 14_876), (99.8, 14_915), (99.8, 14_958), (99.9, 14_404), (99.4, 14_714),
    ),
}  # fmt: skip
"""Method to usage in percent and perplexity, for each of `MEANS`; "moments" matches them by Wasserstein-2."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A codebook on vectors that it has not seen.

    Attributes:
        used: share of the codes that are chosen.
        perplexity: exp of the entropy of the usage, in codes.
        error: mean squared distance of a vector to its code.
    """

    used: float
    perplexity: float
    error: float


class Model(nn.Module):
    """An EMA layer and nothing else."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.vq = VectorQuantizerEMA2D(codes, DIM, decay=DECAY)


def batches(mean: float, samples: int, count: int, seed: int = 0) -> Iterator[torch.Tensor]:
    """Yield that many batches of fresh vectors [samples, D] from N(mean, 1); always the same ones."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randn(samples, DIM, generator=generator) + mean


def trained(data: Iterator[torch.Tensor], codes: int, *, remedies: bool = True) -> torch.Tensor:
    """Return the codes [K, D] after a step for each batch; with remedies, the first one places the codes."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = Model(codes).train()
    layer = reference_layer(model)
    revival = Revival(layer=layer, threshold=ACTIVE_SHARE)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)  # of no code: the EMA moves them
    if remedies:
        model.vq.set_codes(*codes_from_data(next(data), codes, generator=generator))
    for vectors in data:
        with torch.no_grad(), watching((layer,)) as watched:
            model.vq(vectors[..., None, None])
        if remedies:
            revival.after_step(watched, optimizer, generator)
    return model.vq.embedding


def judged(codes: torch.Tensor, vectors: torch.Tensor) -> Figures:
    """Return the figures of codes [K, D] on vectors [N, D]."""
    chosen, distances = nearest(vectors, codes)
    counts = torch.bincount(chosen, minlength=len(codes)).double()
    return Figures(
        used=float((counts > 0).double().mean()),
        perplexity=float(perplexity_of(counts)),
        error=float(distances.double().mean()),
    )
