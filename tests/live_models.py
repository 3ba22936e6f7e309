"""Small models at work: a linear autoencoder, and the reference model with one unsound layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from small_training import Digits
from stored import Stored
from torch import nn

from vqdoctor.checks import all_checks
from vqdoctor.core.evidence import Evidence
from vqdoctor.core.finding import Finding
from vqdoctor.engine.evaluate import evaluate
from vqdoctor.engine.gather import Gathered
from vqdoctor.layouts import find_quantizers
from vqdoctor.models.untouched import untouched
from vqdoctor.probes.model import ModelContext


class AutoEncoder(nn.Module):
    """Linear encoder and decoder around any quantizer of [B, N, D]."""

    def __init__(self, vq: nn.Module, dim: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, dim)
        self.vq = vq
        self.decoder = nn.Linear(dim, 3)

    def forward(self, x: torch.Tensor) -> Any:
        z_q, *rest = self.vq(self.encoder(x))
        return self.decoder(z_q), *rest


def trained(task: Any, epochs: int = 4, lr: float = 2e-3) -> nn.Module:
    """Train by the task's own losses and weight."""
    torch.manual_seed(0)
    model = task.model()
    model.train()
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        for batch in task.batches("train"):
            losses = task.losses(model, batch)
            total = losses.task if losses.vq is None else losses.task + (task.vq_weight or 0) * losses.vq
            adam.zero_grad()
            total.backward()
            adam.step()
    return model.eval()


def on_digits(quantizer: str, epochs: int = 4, **config: Any) -> tuple[nn.Module, Any]:
    """Return the reference model with that VQ layer, trained, and its task."""
    task = Digits(quantizer=quantizer, vq_weight=0.1, decay=0.95, **config)
    return trained(task, epochs), task


def live(
    model: nn.Module, task: Any, probes: Iterable[Any], *codes: str, **context: Any
) -> tuple[dict[str, Any], dict[str, Finding]]:
    """Return the evidence by kind, and the findings of these checks by code, of the model's only layer."""
    found = find_quantizers({name: Stored(t) for name, t in model.state_dict().items()})
    assert len(found.views) == 1
    told = ModelContext(model=model, task=task, views=found.views, **context)
    gathered = Gathered()
    with untouched(model, seed=0):
        gathered.run([probe.PROBE for probe in probes], told, "batch")
    assert gathered.crashed == []
    checks = [check for check in all_checks() if check.code in codes]
    judged = evaluate(checks, [found.views[0].name], gathered.evidence, gathered.unavailable)
    assert [o for o in judged.outcomes if o.status == "crashed"] == []
    evidence: dict[str, Evidence] = {item.kind: item for item in gathered.evidence}
    return evidence, {f.code: f for f in judged.findings}
