"""The Conv2d-VQ classifier: an autoencoder with an EMA codebook, and a classifier on its codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vqdoctor.reference.quantizer import VectorQuantizerEMA2D
from vqdoctor.reference.unsound import SphereCodes, UnnormalisedEMA

Quantizer = VectorQuantizerEMA2D | UnnormalisedEMA | SphereCodes
UNSOUND: dict[str, type[UnnormalisedEMA] | type[SphereCodes]] = {
    "unnormalised": UnnormalisedEMA,
    "sphere": SphereCodes,
}


def make_quantizer(kind: str, num_codes: int, dim: int, *, decay: float, straight_through: bool) -> Quantizer:
    """Return a freshly built quantizer of a kind: "ema", and "unnormalised" or "sphere" with their twins.

    Raises:
        ValueError: if there is no such kind, or a kind always has its estimator and is asked to lack it.
    """
    if kind == "ema":
        return VectorQuantizerEMA2D(num_codes, dim, decay=decay, straight_through=straight_through)
    if not straight_through:
        raise ValueError(f"the quantizer {kind!r} always has a straight-through estimator")
    name, _, twin = kind.partition("-")
    if name not in UNSOUND or twin not in ("", "sound"):
        raise ValueError(f"there is no quantizer {kind!r}")
    return UNSOUND[name](num_codes, dim, decay=decay, sound=twin == "sound")


class Conv2dVQClassifier(nn.Module):
    """Input [batch, channels, H, T] -> Conv2d encoder -> VQ -> decoder, and a classifier head.

    The encoder halves H and T, so an 8×8 digit has 4×4 positions. The head averages features of the
    codes over the positions. `use_vq=False` gives the same model without the VQ layer.
    """

    def __init__(
        self,
        *,
        num_codes: int = 256,
        dim: int = 64,
        decay: float = 0.99,
        straight_through: bool = True,
        quantizer: str = "ema",
        use_vq: bool = True,
        channels: int = 1,
        classes: int = 10,
        width: int = 32,
    ) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, dim, 1),
        )
        self.vq = (
            make_quantizer(quantizer, num_codes, dim, decay=decay, straight_through=straight_through)
            if use_vq
            else None
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, width, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        )
        self.features = nn.Sequential(nn.Conv2d(dim, width, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        """Return logits [B, classes], reconstruction [B, channels, H, T], indices and vq_loss.

        Without VQ the indices are None and vq_loss is empty.
        """
        z_q = self.encoder(x)
        indices = None
        vq_loss: dict[str, torch.Tensor] = {}
        if self.vq is not None:
            z_q, indices, vq_loss["vq"], _ = self.vq(z_q)
        return {
            "logits": self.head(self.features(z_q).mean(dim=(2, 3))),
            "reconstruction": self.decoder(z_q),
            "indices": indices,
            "vq_loss": vq_loss,
        }
