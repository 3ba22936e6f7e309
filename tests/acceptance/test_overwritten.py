"""VQ311 on trained layers of four libraries whose codes a master copy has overwritten, and on sound ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from rank_layers import HomeMade, Signals, library, residual
from rank_libraries import Encodec, Rosinality
from torch import nn

from vqdoctor.core.settings import UserModel
from vqdoctor.engine import examine

pytestmark = pytest.mark.accept

LAYERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "vector-quantize-pytorch": (library(kmeans_init=True), "_codebook.embed"),
    "vector-quantize-pytorch, residual": (residual(kmeans_init=True), "_codebook.embed"),
    "transformers' EnCodec": (Encodec, "codebook.embed"),
    "rosinality": (Rosinality, "vq.embed"),
    "home-made": (lambda: HomeMade(start="broadcast"), "vq.embedding"),
}
"""Name to the layer, and to the ending of its codes' names in the state dict."""


@cache
def trained(name: str) -> tuple[Signals, dict[str, torch.Tensor]]:
    """Train a model for a few epochs, and return its task and its state."""
    torch.manual_seed(0)
    task = Signals(LAYERS[name][0])
    model = task.model().train()
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(6):
        for batch in task.batches("train"):
            losses = task.losses(model, batch)
            adam.zero_grad()
            (losses.task + task.vq_weight * losses.vq).backward()
            adam.step()
    return task, {key: tensor.clone() for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize("live", [False, True], ids=["bare", "live"])
@pytest.mark.parametrize("master", ["none", "zeros", "one row"])
@pytest.mark.parametrize("name", LAYERS)
def test_an_overwritten_codebook_is_the_first_finding(
    name: str, master: str, live: bool, tmp_path: Path
) -> None:
    task, sound = trained(name)
    codes = [key for key in sound if key.endswith(LAYERS[name][1])]
    state = dict(sound)
    for key in codes if master != "none" else ():
        row = torch.zeros(()) if master == "zeros" else torch.full((), 0.5)
        state[key] = row.expand_as(state[key]).clone()
    path = tmp_path / "model.pt"
    torch.save({"model": state}, path)
    report = examine(path, user_model=UserModel(task=task) if live else UserModel())
    found = [finding.code for finding in report.findings]
    assert codes
    if master == "none":
        assert not {"VQ311", "VQ109"} & set(found)
    else:
        assert found[0] == "VQ311", found
