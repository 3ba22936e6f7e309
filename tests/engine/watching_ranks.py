"""One rank of two small distributed trainings, for test_watchers: its number, and a folder."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vqdoctor.engine.monitor import Monitor


class Lookup(nn.Module):
    """The nearest of eight codes on a line, with a straight-through estimator unless it is cut."""

    def __init__(self, *, cut: bool) -> None:
        super().__init__()
        self.cut = cut
        self.embedding = nn.Embedding(8, 2)
        self.embedding.weight.data = torch.stack([torch.arange(8.0), torch.zeros(8)], dim=1)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        indices = torch.cdist(z, self.embedding.weight).argmin(-1)
        z_q = self.embedding(indices)
        loss = (z_q - z.detach()).square().mean() + 0.25 * (z - z_q.detach()).square().mean()
        return z_q.detach() if self.cut else z + (z_q - z).detach(), loss, indices


class Model(nn.Module):
    """An encoder that starts as the identity, the lookup, and a decoder."""

    def __init__(self, *, cut: bool = False) -> None:
        super().__init__()
        self.encoder, self.vq, self.decoder = nn.Linear(2, 2), Lookup(cut=cut), nn.Linear(2, 2)
        self.encoder.weight.data, self.encoder.bias.data = torch.eye(2), torch.zeros(2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss, _ = self.vq(self.encoder(x))
        return self.decoder(z_q), loss


def train(rank: int, trace: Path, *, watches: bool) -> None:
    """Train for four steps on points around this rank's half of the codes."""
    torch.manual_seed(rank)
    model = DistributedDataParallel(Model())
    sgd = torch.optim.SGD(model.parameters(), lr=1e-6)
    monitor = Monitor(model, every=2, out=trace, on_collapse=lambda event: None)
    if watches:
        monitor.begin()
    for _ in range(4):
        x = torch.stack([torch.randint(4 * rank, 4 * rank + 4, (64,)).float(), torch.zeros(64)], dim=1)
        out, loss = model(x + 0.1 * torch.randn(64, 2))
        sgd.zero_grad()
        ((out - x).square().mean() + loss).backward()
        sgd.step()
        if watches:
            monitor.step()
    monitor.end()


def stop(rank: int) -> int:
    """Train a model without gradients before its layer until the monitor stops it, and return the step."""
    model = DistributedDataParallel(Model(cut=True))
    with Monitor(model, every=2, out=None, on_collapse="stop") as monitor, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while monitor.steps < 100:
            out, loss = model(torch.randn(64, 2))
            (out.square().mean() + loss).backward()
            monitor.step()
    return monitor.steps


def main(rank: int, folder: Path) -> None:
    """Train with a monitor on both ranks, and again with one on rank zero alone."""
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    train(rank, folder / f"both-{rank}.vqtrace.jsonl", watches=True)
    train(rank, folder / f"alone-{rank}.vqtrace.jsonl", watches=rank == 0)
    (folder / f"stopped-{rank}").write_text(str(stop(rank)))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
