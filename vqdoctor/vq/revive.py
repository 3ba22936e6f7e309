"""Reviving dead codes: moving codes that nothing chooses to where the data is."""

from __future__ import annotations

import torch

from vqdoctor.core.evidence import ACTIVE_SHARE


def dead_codes(usage: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the indices of the codes under `threshold` / K of the usage, int64 [dead].

    The threshold is relative to uniform usage: an absolute one, such as 0.01, is above the uniform
    share of 256 codes and calls every code dead. Under a threshold of at most one the most used
    code is never dead, so a codebook never changes as a whole.

    Args:
        usage: how often each code was chosen, [K].
        threshold: multiple of the uniform share 1/K, above 0 and at most 1.

    Raises:
        ValueError: if the threshold is not in (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold must be above 0 and at most 1 (a multiple of 1/K), got {threshold}")
    usage = usage.double()
    return (usage * len(usage) < threshold * usage.sum()).nonzero().squeeze(1)


@torch.no_grad()
def revive(
    embedding: torch.Tensor,
    counts: torch.Tensor | None,
    sums: torch.Tensor | None,
    *,
    usage: torch.Tensor,
    vectors: torch.Tensor,
    generator: torch.Generator,
    threshold: float = ACTIVE_SHARE,
) -> torch.Tensor:
    """Move the dead codes, in place, to randomly chosen data vectors, no vector twice.

    The EMA sums and counts are written too: the next EMA update is sums / counts, which would undo
    a change of the codebook alone. A revived code gets the uniform share of the counts.

    Args:
        embedding: the codebook, float [K, D].
        counts: its EMA counts, float [K], or None where it has none.
        sums: its EMA sums, float [K, D], or None where it has none.
        usage: how often each code was chosen on recent data, [K].
        vectors: recent z_e, float [N, D].
        generator: the source of randomness.
        threshold: a code is dead under this multiple of 1/K of the usage, above 0 and at most 1.

    Returns:
        The indices of the revived codes, int64.

    Raises:
        ValueError: if the threshold is not in (0, 1].
    """
    dead = dead_codes(usage, threshold)
    chosen = torch.randperm(vectors.shape[0], generator=generator)[: len(dead)].to(vectors.device)
    dead = dead[: len(chosen)]
    embedding[dead] = vectors.detach()[chosen].to(embedding.dtype)
    if counts is not None:
        counts[dead] = counts.mean()
        if sums is not None:
            sums[dead] = embedding[dead] * counts[dead].unsqueeze(1)
    return dead
