"""Reviving dead codes: moving codes that nothing chooses to where the data is."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from vqdoctor.core.evidence.codebook import ACTIVE_SHARE
from vqdoctor.vq.codebook import Codebook, dead_codes


@torch.no_grad()
def revive(
    codebook: Codebook[torch.Tensor],
    *,
    usage: torch.Tensor,
    vectors: torch.Tensor,
    generator: torch.Generator,
    threshold: float = ACTIVE_SHARE,
    moments: Iterable[torch.Tensor] = (),
) -> torch.Tensor:
    """Move the dead codes, in place, to randomly chosen finite vectors, no vector twice.

    A revived code gets the uniform share of the counts, and all that belongs to a code is written too.

    Args:
        codebook: the codebook.
        usage: how often each code was chosen on recent data, float64 [K].
        vectors: recent z_e, float [N, D].
        generator: the source of randomness.
        threshold: a code is dead under this multiple of 1/K of the usage, above 0 and at most 1.
        moments: an optimizer's moments of the codes, each [K, D].

    Returns:
        The indices of the revived codes, int64.

    Raises:
        ValueError: if the threshold is not in (0, 1].
    """
    dead = dead_codes(usage, threshold).nonzero().squeeze(1)
    vectors = vectors.detach()[torch.isfinite(vectors).all(dim=1)]
    chosen = torch.randperm(len(vectors), generator=generator)[: len(dead)]
    dead = dead[: len(chosen)]
    fair = None if codebook.counts is None else float(codebook.counts.mean())
    codebook.write(dead, vectors[chosen.to(vectors.device)], fair, moments)
    return dead
