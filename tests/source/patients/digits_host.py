"""What the patients share: digits, an encoder, a head, and the task around a VQ layer."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from vqdoctor import Losses

_digits = load_digits()
_images = torch.tensor(_digits.images[:, None] / 16, dtype=torch.float32)
_labels = torch.tensor(_digits.target)
_order = torch.randperm(len(_images), generator=torch.Generator().manual_seed(0))
TRAIN = [(_images[i], int(_labels[i])) for i in _order[:1400]]
DIM, CODES = 16, 64


def served(split, size=64):
    order = _order[:1400] if split == "train" else _order[1400:]
    return [(_images[part], _labels[part]) for part in order.split(size)]


class Encoder(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, DIM, 4, 2, 1), nn.GroupNorm(1, DIM)
        )


class Head(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(DIM * 16, 64), nn.ReLU(), nn.Linear(64, 10))


class Digits:
    """A task of a model that returns logits and its VQ loss."""

    vq_weight = 1.0
    build = None

    def model(self):
        torch.manual_seed(0)
        return self.build()

    def batches(self, split):
        return served(split)

    def losses(self, model, batch):
        x, y = batch
        logits, vq_loss = model(x)
        return Losses(task=F.cross_entropy(logits, y), vq=vq_loss, logits=logits, labels=y)
