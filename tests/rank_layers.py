"""VQ layers in a distributed training: those that share what each process saw, and those that keep it.

Run by torch's launcher, it writes how the probe finds the codebooks of the processes to agree.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rank_libraries
import torch
from torch import distributed, nn
from torch.nn import functional

from vqdoctor.core.evidence import RankAgreement
from vqdoctor.core.launcher import Launched
from vqdoctor.core.settings import UserModel
from vqdoctor.engine.session import Session
from vqdoctor.models.process_group import default_group
from vqdoctor.models.task import Losses
from vqdoctor.probes.model.rank_agreement import PROBE

CODES, DIM = 32, 8


def in_a_group() -> bool:
    return distributed.is_initialized()


class HomeMade(nn.Module):
    """An EMA codebook, each part of which may be shared or not."""

    def __init__(self, *, reduced: bool = True, start: str = "", revived: str = "") -> None:
        super().__init__()
        self.reduced, self.start, self.revived = reduced, start, revived
        self.register_buffer("embedding", torch.randn(CODES, DIM))
        self.register_buffer("ema_cluster_size", torch.ones(CODES))
        self.register_buffer("ema_embed_sum", self.embedding.clone())
        self.register_buffer("initted", torch.tensor(not start))

    def forward(self, z_e: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        flat = z_e.detach().reshape(-1, DIM)
        if self.training and not self.initted:
            self.begin(flat[torch.randperm(len(flat))[:CODES]].clone())
        indices = torch.cdist(flat, self.embedding).argmin(1)
        z_q = self.embedding[indices].view_as(z_e)
        if self.training:
            self.follow(flat, functional.one_hot(indices, CODES).to(flat))
        loss = functional.mse_loss(z_e, z_q.detach())
        return z_e + (z_q - z_e).detach(), indices.view(z_e.shape[:-1]), loss

    def begin(self, codes: torch.Tensor) -> None:
        self.initted.fill_(True)
        if self.start == "rank zero alone" and in_a_group() and distributed.get_rank() > 0:
            return
        if self.start == "broadcast" and in_a_group():
            distributed.broadcast(codes, 0)
        self.embedding.copy_(codes)
        self.ema_embed_sum.copy_(codes)

    def follow(self, flat: torch.Tensor, one_hot: torch.Tensor) -> None:
        counts, sums = one_hot.sum(0), one_hot.T @ flat
        if self.reduced and in_a_group():
            distributed.all_reduce(counts)
            distributed.all_reduce(sums)
        self.ema_cluster_size.mul_(0.9).add_(counts, alpha=0.1)
        self.ema_embed_sum.mul_(0.9).add_(sums, alpha=0.1)
        whole = self.ema_cluster_size.sum()
        divisor = (self.ema_cluster_size + 1e-5) / (whole + CODES * 1e-5) * whole
        self.embedding.copy_(self.ema_embed_sum / divisor[:, None])
        if self.revived:
            new = flat[torch.randint(len(flat), (CODES,))].clone()
            if self.revived == "broadcast" and in_a_group():
                distributed.broadcast(new, 0)
            dead = self.ema_cluster_size < 0.85
            self.embedding[dead] = self.ema_embed_sum[dead] = new[dead]
            self.ema_cluster_size[dead] = 1.0


def library(**options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from vector_quantize_pytorch import VectorQuantize

        return VectorQuantize(dim=DIM, codebook_size=CODES, decay=0.9, **options)

    return make


def residual(**options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from vector_quantize_pytorch import ResidualVQ

        return ResidualVQ(dim=DIM, codebook_size=CODES, num_quantizers=2, decay=0.9, **options)

    return make


HEALTHY: dict[str, Callable[[], nn.Module]] = {
    "EMA": HomeMade,
    "started by a broadcast": lambda: HomeMade(start="broadcast"),
    "revived by a broadcast": lambda: HomeMade(revived="broadcast"),
    "library": library(),
    "library, k-means and revival": library(kmeans_init=True, threshold_ema_dead_code=2),
    "library, cosine": library(use_cosine_sim=True),
    "library, trained codes": library(learnable_codebook=True, ema_update=False),
    "library, residual": residual(),
    **rank_libraries.HEALTHY,
}
SICK: dict[str, Callable[[], nn.Module]] = {
    "EMA of its own": lambda: HomeMade(reduced=False),
    "started on rank zero alone": lambda: HomeMade(start="rank zero alone"),
    "revived by its own": lambda: HomeMade(revived="own"),
    "library, not synchronised": library(sync_codebook=False),
    "library, k-means of its own": library(kmeans_init=True, sync_kmeans=False, sync_codebook=False),
    "library, revival of its own": library(threshold_ema_dead_code=2, sync_codebook=False),
    "library, cosine, not synchronised": library(use_cosine_sim=True, sync_codebook=False),
    "library, residual, not synchronised": residual(sync_codebook=False),
    **rank_libraries.SICK,
}


class Net(nn.Module):
    def __init__(self, vq: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, DIM))
        self.vq = vq
        self.decoder = nn.Linear(DIM, 6)

    def forward(self, x: torch.Tensor) -> Any:
        z_q, indices, loss = self.vq(self.encoder(x))
        return self.decoder(z_q), indices, loss


class Signals:
    vq_weight = 0.25

    def __init__(self, layer: Callable[[], nn.Module]) -> None:
        self.layer = layer
        self.x = torch.randn(512, 5, 6, generator=torch.Generator().manual_seed(0))

    def model(self) -> nn.Module:
        return Net(self.layer())

    def batches(self, split: str) -> list[torch.Tensor]:
        return list(self.x.split(32)) if split == "train" else []

    def losses(self, model: nn.Module, batch: torch.Tensor) -> Losses:
        output, _, loss = model(batch)
        return Losses(task=functional.mse_loss(output, batch), vq=loss.sum())


def save_own(task: Signals, launched: Launched, path: Path) -> None:
    """Save what a process has after its own batches, the buffers of which nothing broadcasts."""
    with default_group(launched):
        model = task.model().train()
        for tensor in (*model.parameters(), *model.buffers()):
            distributed.broadcast(tensor.data, 0)
        for batch in task.batches("train")[launched.rank :: launched.size]:
            task.losses(model, batch)
        torch.save({"model": model.state_dict()}, path)


def main(folder: Path, names: Sequence[str]) -> None:
    """Write, for each layer, the differing processes and codes as the probe finds them, and files of both."""
    launched, found = Launched.of(), {}
    for number, name in enumerate(names):
        torch.manual_seed(0)
        task, file = Signals({**HEALTHY, **SICK}[name]), folder / f"of-{launched.rank}.pt"
        torch.save({"model": task.model().state_dict()}, file)
        if launched.size > 1:
            save_own(task, launched, folder / f"{number}_rank{launched.rank}.pt")
        with Session.open(file, user_model=UserModel(task=task), launched=launched) as session:
            seen = list(PROBE.measure(session.model_context()))
        found[name] = [(e.differing, e.codes) if isinstance(e, RankAgreement) else e.reason for e in seen]
    if launched.rank == 0:
        (folder / "agreement.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
