"""What a file remembers of its training, and where its optimizer's slots lie, without any probe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vqdoctor.checkpoint import LazyTensor, open_checkpoint
from vqdoctor.layouts import find_quantizers
from vqdoctor.saved.placement import Unplaced, codebook_slot, placed_slots
from vqdoctor.saved.training import SavedTraining


class Trained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 4), nn.Linear(4, 8)
        self.vq = nn.Module()
        self.vq.embedding = nn.Embedding(16, 4)


def step(model: nn.Module) -> torch.optim.Adam:
    """Every parameter's gradient is its own number, from 1."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for number, parameter in enumerate(model.parameters(), start=1):
        parameter.grad = torch.full_like(parameter, float(number))
    optimizer.step()
    return optimizer


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    """Return a function from what is saved to what the file remembers, and its layers."""

    def saved(state: dict[str, Any]) -> Any:
        torch.save(state, tmp_path / "model.pt")
        checkpoint = open_checkpoint(tmp_path / "model.pt")
        return SavedTraining(checkpoint=checkpoint), find_quantizers(checkpoint.tensors).views

    return saved


def test_record_optimizers_and_start_weight(saved: Any) -> None:
    model = Trained()
    config = {"vq": {"decay": 0.9}, "vq_weight": 0.5}
    state = {"model": model.state_dict(), "opt": step(model).state_dict(), "config": config}
    training, (view,) = saved(state)
    (optimizer,) = training.optimizers
    assert (optimizer.path, optimizer.steps, optimizer.learning_rate) == ("opt", 1, 2e-3)
    assert (training.record.decay, training.record.vq_weight, training.record.updates) == (0.9, 0.5, 1)
    assert training.start_weight(view) == pytest.approx(0.9)
    assert training.estimated_counts == frozenset()


def test_without_a_decay_the_start_weight_is_unknown(saved: Any) -> None:
    model = Trained()
    training, (view,) = saved({"model": model.state_dict(), "opt": step(model).state_dict()})
    assert training.start_weight(view) is None


def test_the_decay_that_the_counts_prove_is_each_layers_own(saved: Any) -> None:
    codes, counts = torch.randn(2, 16, 4), torch.ones(2, 16)
    for _ in range(500):
        counts[0].mul_(0.9999)
        counts[1].mul_(0.9)
    counts += torch.arange(16) / 4
    state = {
        f"vq.layers.{level}.{name}": values
        for level in range(2)
        for name, values in (
            ("embedding", codes[level]),
            ("ema_cluster_size", counts[level]),
            ("ema_embed_sum", codes[level] * counts[level, :, None]),
        )
    }
    training, (slow, fast) = saved({"model": state, "step": 500})
    assert (training.decay(slow), training.decay(fast)) == (0.9999, None)
    assert training.start_weight(slow) == pytest.approx(0.9999**500)
    assert training.start_weight(fast) is None


def test_the_codebooks_slot_is_that_of_the_codebook(saved: Any) -> None:
    model = Trained()
    training, (view,) = saved({"model": model.state_dict(), "opt": step(model).state_dict()})
    slot = codebook_slot(training, view, (view,))
    assert slot is not None
    remembered = slot.state["exp_avg"]
    assert isinstance(remembered, LazyTensor)
    number = [name for name, _ in model.named_parameters()].index("vq.embedding.weight") + 1
    assert remembered.read() == pytest.approx(0.1 * number)
    parts = [placed.part for placed in placed_slots(training, view, (view,))]
    assert sorted(parts) == ["after"] * 2 + ["before"] * 2 + ["codebook"]


def test_an_optimizer_of_something_else_has_no_slot_of_the_codebook(saved: Any) -> None:
    training, (view,) = saved({"model": Trained().state_dict(), "opt": step(nn.Linear(77, 3)).state_dict()})
    assert codebook_slot(training, view, (view,)) is None
    with pytest.raises(Unplaced, match="do not fit"):
        placed_slots(training, view, (view,))
