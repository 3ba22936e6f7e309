"""A checkpoint laid out as the first model wrote its own: names, groups, numpy scalars."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class FirstVQ(nn.Module):
    """The buffers of its VQ layer, as after a training: means of some length, codes on the unit sphere."""

    def __init__(self, num_codes: int, dim: int, sums: str, on_sphere: bool) -> None:
        super().__init__()
        codes = nn.functional.normalize(torch.randn(num_codes, dim), dim=1)
        counts = torch.rand(num_codes) * 12 + 0.05
        counts[num_codes // 2 :] *= 1e-9  # the half that is hardly ever chosen
        means = codes * (4.91 + 0.4 * torch.randn(num_codes, 1))
        self.register_buffer("embedding", codes if on_sphere else means.clone())
        self.register_buffer("ema_cluster_size", counts)
        self.register_buffer(sums, means * counts[:, None])
        self.register_buffer("steps", torch.tensor(1_450))


class FirstModel(nn.Module):
    """Encoder, VQ layer, decoder and the head of twelve classes."""

    def __init__(self, num_codes: int, dim: int, sums: str, on_sphere: bool, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(9, dim, 3, padding=1)
        self.vq = FirstVQ(num_codes, dim, sums, on_sphere)
        self.decoder = nn.Conv2d(dim, 9, 3, padding=1)
        self.head = nn.Linear(dim, classes)


def first_model_file(
    num_codes: int = 512,
    dim: int = 64,
    sums: str = "ema_embed_sum",
    *,
    on_sphere: bool = True,
    classes: int = 12,
    val_acc: float = 0.094,
    activity: float = 2.486,
) -> dict[str, object]:
    """Return what its training script saved, with a record that says chance unless told otherwise."""
    torch.manual_seed(0)
    model = FirstModel(num_codes, dim, sums, on_sphere, classes)
    groups = [{"params": part.parameters(), "lr": 1e-3} for part in (model.encoder, model.decoder)]
    groups += [{"params": [model.head.weight]}, {"params": [model.head.bias], "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=1e-3)
    hidden = model.encoder(torch.randn(4, 9, 2, 8))
    (model.decoder(hidden).square().mean() + model.head(hidden.mean((2, 3))).square().mean()).backward()
    adam.step()
    metrics = {
        "reconstruction": 0.61, "vq": 3.2, "activity": activity, "total": 3.4, "perplexity": 89.3,
        "codebook_usage": 0.455,
    }  # fmt: skip
    return {
        "epoch": 19,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": adam.state_dict(),
        "val_acc": np.float64(val_acc),
        "val_loss": np.float64(3.4),
        "metrics": {name: np.float64(value) for name, value in metrics.items()},
        "config": {"num_codes": num_codes, "code_dim": dim},
    }
