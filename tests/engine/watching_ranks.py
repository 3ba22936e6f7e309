"""One rank of small distributed trainings, for test_watchers: its number, and a folder."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path
from typing import Unpack

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vqdoctor.core.trace import Event
from vqdoctor.engine.monitor import Monitor, MonitorOptions, Stopped


class Lookup(nn.Module):
    """The nearest of eight codes on a line, with or without a straight-through estimator."""

    def __init__(self, *, straight_through: bool = True) -> None:
        super().__init__()
        self.straight_through = straight_through
        self.embedding = nn.Embedding(8, 2)
        self.embedding.weight.data = torch.stack([torch.arange(8.0), torch.zeros(8)], dim=1)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        indices = torch.cdist(z, self.embedding.weight).argmin(-1)
        z_q = self.embedding(indices)
        loss = (z_q - z.detach()).square().mean() + 0.25 * (z - z_q.detach()).square().mean()
        return z + (z_q - z).detach() if self.straight_through else z_q, loss, indices


class Model(nn.Module):
    """An encoder that starts as the identity, the lookup, and a decoder."""

    def __init__(self, *, straight_through: bool = True) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(2, 2), nn.Linear(2, 2)
        self.vq = Lookup(straight_through=straight_through)
        self.encoder.weight.data, self.encoder.bias.data = torch.eye(2), torch.zeros(2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss, _ = self.vq(self.encoder(x))
        return self.decoder(z_q), loss


def train(
    rank: int,
    trace: Path,
    *,
    watches: bool = True,
    near: int = 4,
    straight_through: bool = True,
    **options: Unpack[MonitorOptions],
) -> tuple[Model, int]:
    """Train for four steps on points around some codes of this rank's half; return the model and the steps.

    Args:
        rank: number of this process.
        trace: the file of the trace.
        watches: whether this rank's monitor begins.
        near: how many of its four codes there are points around.
        straight_through: whether the lookup has an estimator.
        options: further ones of the monitor.
    """
    torch.manual_seed(rank)
    model = Model(straight_through=straight_through)
    shared = DistributedDataParallel(model)
    sgd = torch.optim.SGD(model.parameters(), lr=1e-6)
    monitor = Monitor(shared, every=2, out=trace, optimizer=sgd, **options)
    if watches:
        monitor.begin()
    with contextlib.suppress(Stopped):
        for _ in range(4):
            x = torch.stack([torch.randint(4 * rank, 4 * rank + near, (64,)).float(), torch.zeros(64)], dim=1)
            out, loss = shared(x + 0.1 * torch.randn(64, 2))
            sgd.zero_grad()
            ((out - x).square().mean() + loss).backward()
            sgd.step()
            if watches:
                monitor.step()
    monitor.end()
    return model, monitor.steps


def ignore(_: Event) -> None:
    """Let an event pass."""


def main(rank: int, folder: Path) -> None:
    """Train with a monitor on both ranks, with one on rank zero alone, with revived codes, and to a stop."""
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    files = {
        name: folder / f"{name}-{rank}.vqtrace.jsonl" for name in ("both", "alone", "revived", "stopped")
    }
    train(rank, files["both"], on_collapse=ignore)
    train(rank, files["alone"], on_collapse=ignore, watches=rank == 0)
    model, _ = train(rank, files["revived"], on_collapse=ignore, near=2, revive=True, seed=rank)
    torch.save(model.vq.embedding.weight.detach(), folder / f"codes-{rank}.pt")
    warnings.simplefilter("ignore")
    _, done = train(rank, files["stopped"], straight_through=False, on_collapse="stop")
    (folder / f"steps-{rank}").write_text(str(done))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
