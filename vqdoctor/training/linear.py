"""The codebook as a fixed table times a trained matrix, so that every step moves every code (SimVQ)."""

from __future__ import annotations

from typing import Any

import torch

from vqdoctor.capture.layer import CapturedLayer, Watched


class LinearCodebook:
    """Trains one matrix [D, D] of a layer in place of its rows; the file gets the product.

    Zhu et al. 2024, "Addressing Representation Collapse in Vector Quantized Models with One Linear Layer":
    the codebook loss ‖sg[z_e] − c W‖² moves W. Each step overwrites what the layer's own EMA or
    optimizer did.
    """

    def __init__(self, layer: CapturedLayer, learning_rate: float) -> None:
        self._layer = layer
        self._table = layer.codes()
        dim = self._table.shape[1]
        self._matrix = torch.eye(dim, device=self._table.device).requires_grad_()
        self._optimizer = torch.optim.Adam([self._matrix], lr=learning_rate)

    def after_step(self, watched: Watched) -> None:
        """Move the matrix towards a batch's vectors, and write the codes."""
        vectors, codes = self._layer.vectors(watched), self._layer.chosen(watched)
        if vectors is None or codes is None or len(codes) != len(vectors):
            return
        with torch.enable_grad():
            loss = (self._table[codes] @ self._matrix - vectors).square().mean()
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        rows = torch.arange(self._layer.num_codes)
        self._layer.write(rows, self._table @ self._matrix.detach())

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        return {
            "table": self._table,
            "matrix": self._matrix.detach(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._table.copy_(state["table"])
        with torch.no_grad():
            self._matrix.copy_(state["matrix"])
        self._optimizer.load_state_dict(state["optimizer"])
