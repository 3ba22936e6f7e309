"""Small VQ models, trained and saved as a user would, opened by the real reader."""

import numpy as np
import pytest
import torch
from torch import nn

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.core.levels import Confidence
from vqdoctor.layouts import find_quantizers
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes.file import FileContext

torch.set_num_threads(1)


class TinyVQ(nn.Module):
    """An EMA quantizer; it also keeps the last 400 batches' counts, which no file would hold."""

    def __init__(self, codes, dim, decay, ste, start):
        super().__init__()
        self.register_buffer("embedding", torch.randn(codes, dim))
        self.register_buffer("ema_cluster_size", torch.full((codes,), float(start)))
        self.register_buffer("ema_embedding_sum", self.embedding * start)
        self.decay, self.ste, self.history = decay, ste, []

    def forward(self, z):
        chosen = torch.cdist(z, self.embedding).argmin(1)
        q = self.embedding[chosen]
        votes = nn.functional.one_hot(chosen, len(self.embedding)).float()
        self.history.append(votes.sum(0))
        self.ema_cluster_size.mul_(self.decay).add_(votes.sum(0), alpha=1 - self.decay)
        self.ema_embedding_sum.mul_(self.decay).add_(votes.T @ z.detach(), alpha=1 - self.decay)
        total = self.ema_cluster_size.sum()
        smooth = (self.ema_cluster_size + 1e-5) / (total + len(votes.T) * 1e-5) * total
        self.embedding.copy_(self.ema_embedding_sum / smooth[:, None])
        loss = ((z - q.detach()) ** 2).mean()
        return (z + (q - z).detach() if self.ste else q.detach()), loss


class TinyModel(nn.Module):
    def __init__(self, codes=32, dim=6, decay=0.9, ste=True, start=1):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, dim))
        self.vq = TinyVQ(codes, dim, decay, ste, start)
        self.decoder = nn.Sequential(nn.Linear(dim, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x):
        q, loss = self.vq(self.encoder(x))
        return self.decoder(q), loss


def train(model, steps, weight=0.1, groups=None, optimizer=torch.optim.Adam):
    torch.manual_seed(0)
    adam = optimizer(groups(model) if groups else model.parameters(), lr=1e-3)
    for _ in range(steps):
        x = torch.randn(64, 8)
        scores, vq_loss = model(x)
        adam.zero_grad()
        (nn.functional.cross_entropy(scores, x[:, :4].argmax(1)) + weight * vq_loss).backward()
        adam.step()
    return adam


@pytest.fixture
def tiny():
    """Return a function that builds the model with a fixed seed."""

    def tiny(**kwargs):
        torch.manual_seed(0)
        return TinyModel(**kwargs)

    return tiny


@pytest.fixture
def trained():
    """Return `train`: it trains a model and returns its optimizer."""
    return train


@pytest.fixture
def examine(tmp_path):
    """Return a function from what is saved to the context of the file's probes."""

    def examine(saved, **kwargs):
        path = tmp_path / "model.pt"
        torch.save(saved, path)
        checkpoint = open_checkpoint(path)
        return FileContext(checkpoint=checkpoint, views=find_quantizers(checkpoint.tensors).views, **kwargs)

    return examine


@pytest.fixture
def ask():
    """Return a function that runs a probe module and returns the one item on that layer."""

    def ask(probe, context, layer="vq"):
        (item,) = (e for e in probe.PROBE.measure(context) if e.layer == layer)
        return item

    return ask


@pytest.fixture
def make_view():
    """Return a function that builds a view of plain arrays."""

    def make_view(codebook, counts=None, sums=None, name="vq", **kwargs):
        def plain(array):
            return None if array is None else np.asarray(array, dtype=np.float32)

        codebook = plain(codebook)
        return QuantizerView(
            name=name, layout="test", confidence=Confidence.HIGH, keys={"codebook": f"{name}.embed"},
            num_codes=codebook.shape[0], dim=codebook.shape[1], load_codebook=lambda: codebook,
            load_counts=lambda: plain(counts), load_sums=lambda: plain(sums), **kwargs,
        )  # fmt: skip

    return make_view
