"""Padding and masked positions are no data: they count in no usage, no distance and no gradient."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_models import live
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.core.errors import UserError
from vqdoctor.engine import Settings, UserModel, examine
from vqdoctor.models.guarded_task import GuardedTask
from vqdoctor.models.task import Losses
from vqdoctor.probes.model import data_match, gradient_path, loss_terms, usage

REAL, LENGTH = 4, 16


class Padded(nn.Module):
    """Sequences [B, 16, 3], of which the first 4 frames are data; the layer gets the mask, or does not."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 8)
        self.vq = VectorQuantize(
            dim=8, codebook_size=16, rotation_trick=False, commitment_weight=0.25, kmeans_init=True
        )
        self.decoder = nn.Linear(8, 3)
        self.masked = masked

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        z_q, _, loss = self.vq(self.encoder(x), mask=mask if self.masked else None)
        return self.decoder(z_q), loss.sum()


class Task:
    vq_weight = 1.0

    def __init__(self, *, masked: bool, told: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        self._model = Padded(masked)
        self.mask = (torch.arange(LENGTH) < REAL).repeat(64, 1)
        self.x = torch.randn(64, LENGTH, 3, generator=generator) * self.mask[..., None]
        self.told = told
        self._model.train()
        self._model(self.x[:, :REAL], self.mask[:, :REAL])  # k-means on the real frames

    def model(self) -> nn.Module:
        return self._model

    def batches(self, split: str) -> Iterator[Any]:
        if split == "stop":
            return iter(())
        return iter([{"x": self.x[i : i + 32], "real": self.mask[i : i + 32]} for i in (0, 32)])

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        recon, vq = model(batch["x"], batch["real"])
        error = functional.mse_loss(recon, batch["x"], reduction="none").mean(-1)
        task = (error * batch["real"]).sum() / batch["real"].sum()
        return Losses(task=task, vq=vq, mask=batch["real"][:, : self.told] if self.told else None)


PROBES = (usage, data_match, gradient_path, loss_terms)


def measured(task: Any) -> dict[str, Any]:
    evidence, findings = live(task.model(), task, PROBES, "VQ101", "VQ204", "VQ301", "VQ501")
    return evidence | {"findings": set(findings)}


def test_a_layer_that_masks_is_measured_by_its_data_alone() -> None:
    found = measured(Task(masked=True))
    assert found["usage"].sample_size == 64 * REAL  # "val" is "train"
    assert found["data-match"].sample_size == 2 * 64 * REAL
    assert found["gradient-path"].zero_share == 0
    assert found["loss-terms"].commitment == pytest.approx(0.25, rel=1e-3)
    assert found["findings"] == set()


@pytest.mark.parametrize("how", ["by the task", "by --mask"])
def test_a_mask_is_taken_for_a_layer_that_has_none(how: str) -> None:
    plain, task = (
        measured(Task(masked=False)),
        Task(masked=False, told=LENGTH if how == "by the task" else None),
    )
    told = measured(task if task.told else GuardedTask(task, None, None, "real"))
    assert plain["usage"].sample_size == 64 * LENGTH and plain["usage"].max_share > 0.7
    assert told["usage"].sample_size == 64 * REAL and told["data-match"].sample_size == 2 * 64 * REAL
    assert told["usage"].max_share < 0.3
    assert told["loss-terms"].commitment == pytest.approx(0.25, rel=1e-3)  # its loss averages over all


def test_a_mask_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="the mask has the shape"):
        measured(Task(masked=False, told=5))
    with pytest.raises(UserError, match="--mask reel"):
        measured(GuardedTask(Task(masked=False), None, None, "reel"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(Task(masked=True).model().state_dict(), tmp_path / "c.pt")
    return tmp_path / "c.pt"


def test_the_flag_names_an_entry_of_a_task_or_a_dump(checkpoint: Path) -> None:
    task = Task(masked=False)
    settings = Settings(mask="real")
    report = examine(checkpoint, user_model=UserModel(task=task), settings=settings)
    assert report.usages("vq")["batch"].sample_size == 64 * REAL
    codes = np.zeros((64, LENGTH), dtype=np.int64)
    codes[:, :REAL] = np.arange(64 * REAL).reshape(64, REAL) % 16
    data = {"indices": codes, "real": task.mask.numpy()}
    assert examine(checkpoint, data=data, settings=settings).usages("vq")["batch"].sample_size == 64 * REAL
    for wrong in ({"data": {"indices": codes}}, {}):
        with pytest.raises(UserError, match="--mask"):
            examine(checkpoint, settings=settings, **wrong)


def test_masked_indices_of_a_dump_are_left_out_with_a_note(checkpoint: Path) -> None:
    codes = np.full((64, LENGTH), -1, dtype=np.int64)
    codes[:, :REAL] = np.arange(64 * REAL).reshape(64, REAL) % 16
    z_e = np.random.default_rng(0).normal(size=(64, LENGTH, 8)).astype(np.float32)
    report = examine(checkpoint, data={"indices": codes, "z_e": z_e})
    assert report.usages("vq")["batch"].sample_size == 64 * REAL
    assert "768 of 1,024 dumped indices are -1 (masked), and left out" in report.notes
    (match,) = (e for e in report.evidence if e.kind == "data-match")
    assert match.sample_size == 64 * REAL
    with pytest.raises(UserError, match="every position is masked"):
        examine(checkpoint, data={"indices": np.full_like(codes, -1)})
