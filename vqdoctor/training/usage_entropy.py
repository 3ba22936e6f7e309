"""How evenly a batch would use the codes, as a loss that has a gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from vqdoctor.capture.layer import CapturedLayer, Watched
from vqdoctor.capture.vectors import rows

TEMPERATURE = 0.1
"""Of the soft assignment, in standard deviations of a vector's distances to the codes: among 256 codes the
nearest is then some 20 times as likely as the next (of normally distributed distances, 0.3 apart)."""
MOST_VECTORS = 4096
"""Vectors of a batch that are asked: their [N, K] table of distances is kept for the gradient."""


def usage_entropy(vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Return the entropy of the mean soft assignment of vectors to codes, as a share of ln K.

    It is 0 where all vectors choose one code, and 1 where every code is as likely: the term H(E p) of
    Jansen et al. 2019, "Coincidence, Categorization, and Consolidation", and of Yu et al. 2023, MAGVIT-v2.

    Args:
        vectors: float [N, D].
        codes: float [K, D].
    """
    if len(codes) < 2:
        return vectors.new_zeros(())
    middle = codes.detach().mean(dim=0)  # a common offset costs no precision
    vectors, codes = vectors - middle, codes - middle
    distances = codes.square().sum(dim=1) - 2 * vectors @ codes.T  # and |z|², which all codes share
    scale = TEMPERATURE * distances.detach().std(dim=1, keepdim=True)
    tiny = torch.finfo(distances.dtype).tiny
    chosen = torch.softmax(-distances / scale.clamp_min(tiny), dim=1).mean(dim=0).clamp_min(tiny)
    return -(chosen * chosen.log()).sum() / math.log(len(codes))


def mean_entropy(layers: Iterable[CapturedLayer], watched: Watched) -> torch.Tensor | None:
    """Return the mean entropy of the layers that look z_e up as it is; None where there are none.

    The gradient goes to z_e, and to the codes where they are parameters.
    """
    found = []
    for layer in layers:
        stored = layer.stored()
        for call in layer.calls(watched)[:1]:
            vectors = rows(call.z_e, layer.reader.axis(call)).flatten(0, 1)
            vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
            if stored is None or layer.view.derived or vectors.shape[1] != layer.view.dim:
                continue
            stride = -(-len(vectors) // MOST_VECTORS)
            found.append(usage_entropy(vectors[::stride], layer.view.place.codes(stored).to(vectors.dtype)))
    return torch.stack(found).mean() if found else None
