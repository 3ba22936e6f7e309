"""All levels of a residual stack in one buffer of one module: each is counted by its own indices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from live_models import AutoEncoder
from stored import Stored
from torch import nn
from torch.nn import functional

from vqdoctor.core.evidence import Evidence
from vqdoctor.engine.gather import Gathered
from vqdoctor.layouts import find_quantizers
from vqdoctor.models.task import Losses
from vqdoctor.models.untouched import untouched
from vqdoctor.probes.model import ModelContext, data_match, gradient_path, usage

LEVELS, CODES, DIM = 3, 16, 8


class Stack(nn.Module):
    """Levels [Q, K, D]; training leaves the last one out, and gives -1 for its indices."""

    def __init__(self) -> None:
        super().__init__()
        scale = torch.tensor([1.0, 0.3, 0.1])[:, None, None]
        shares = torch.rand(LEVELS, CODES) + 0.1
        self.register_buffer("weight", scale * torch.randn(LEVELS, CODES, DIM))
        self.register_buffer("shares", shares / shares.sum(1, keepdim=True))
        self.register_buffer("mean", self.weight * self.shares[..., None])

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rest, chosen = z.detach().flatten(0, 1), []
        for codes in self.weight[: LEVELS - 1 if self.training else LEVELS]:
            chosen.append(torch.cdist(rest, codes).argmin(1))
            rest = rest - codes[chosen[-1]]
        chosen += [torch.full_like(chosen[0], -1)] * (LEVELS - len(chosen))
        z_q = z.detach() - rest.view_as(z)
        loss = functional.mse_loss(z, z_q)
        return z + (z_q - z).detach(), torch.stack(chosen, -1), loss


class Task:
    vq_weight = 1.0

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def model(self) -> nn.Module:
        return self._model

    def batches(self, split: str) -> Iterator[Any]:
        return iter(torch.randn(64, 10, 3, generator=torch.Generator().manual_seed(0)).split(32))

    def losses(self, model: nn.Module, x: Any) -> Losses:
        recon, _, vq = model(x)
        return Losses(task=functional.mse_loss(recon, x), vq=vq)


def test_levels_of_one_module() -> None:
    torch.manual_seed(0)
    model = AutoEncoder(Stack())
    views = find_quantizers({name: Stored(t) for name, t in model.state_dict().items()}).views
    assert [view.name for view in views] == [f"vq[head {level}]" for level in range(LEVELS)]
    gathered, task = Gathered(), Task(model)
    with untouched(model, seed=0):
        probes = [probe.PROBE for probe in (usage, data_match, gradient_path)]
        gathered.run(probes, ModelContext(model=model, task=task, views=views), "batch")
    assert gathered.crashed == []
    found: dict[tuple[str, str | None], Evidence] = {(e.kind, e.layer): e for e in gathered.evidence}
    with torch.no_grad():
        own = torch.cat([model.eval()(x)[1] for x in task.batches("val")])
    for level in range(LEVELS):
        counted: Any = found["usage", f"vq[head {level}]"]
        assert (counted.sample_size, counted.used) == (640, len(own[:, level].unique()))
    # what the second level is asked for is what the first leaves, which no module shows
    assert {layer for kind, layer in found if kind == "data-match"} == {"vq[head 0]"}
    # no vector reaches the last level in training
    assert {layer for kind, layer in found if kind == "gradient-path"} == {"vq[head 0]", "vq[head 1]"}
