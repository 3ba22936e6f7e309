"""Which positions of a layer are data: padding, silence and masked positions are none."""

from __future__ import annotations

import torch

from vqdoctor.core.errors import UserError

MASKED = -1
"""The code that libraries give a masked vector."""


def data_positions(
    codes: torch.Tensor | None, mask: torch.Tensor | None, batch: int, positions: int
) -> torch.Tensor | None:
    """Return which vectors [batch, positions] of a call are data, bool; None where all are.

    Args:
        codes: the layer's codes, [batch, positions · heads]; a position whose codes are all -1 is masked.
        mask: the task's mask, [batch, …], true where there is data. Where an encoder makes one position of
            several, a position is data if any of them is.
        batch: rows of the call.
        positions: vectors of a row.

    Raises:
        UserError: if the mask has another number of samples or positions.
    """
    kept = None
    if codes is not None and bool((codes == MASKED).any()):
        kept = (codes.reshape(batch, positions, -1) != MASKED).any(-1)
    if mask is not None:
        given = mask.reshape(batch, -1) if mask.numel() % batch == 0 else mask.reshape(1, -1)
        if len(given) != batch or given.shape[1] == 0 or given.shape[1] % positions:
            raise UserError(
                f"the mask has the shape {list(mask.shape)}, the VQ layer {batch} x {positions} positions",
                "give it as [batch, positions], True where there is data",
            )
        by_mask = (given.reshape(batch, positions, -1) != 0).any(-1)
        kept = by_mask if kept is None else kept & by_mask.to(kept.device)
    return kept
