"""VQ321 fill-values: -9999 where a value is missing, beside what is no fill value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judged import says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import Evidence, FirstInput, TaskMetrics
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine import examine
from vqdoctor.metrics.fill import fill_values

FILLED = FirstInput.healthy(fill=-9.0, fill_channels=2, fill_share=0.01, fill_variance=0.5)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([FILLED], "error"),
        ([FILLED, TaskMetrics.healthy(accuracy=0.6, chance_accuracy=0.25)], "error"),
        ([FILLED, TaskMetrics.healthy(accuracy=0.95, chance_accuracy=0.25)], "warning"),
        ([FILLED.replace(fill_variance=0.49)], "passes"),
        ([FILLED.replace(fill=None)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ321", *evidence) == expected


def table(rows: int = 2000) -> np.ndarray[Any, Any]:
    """Measurements of four kinds: normal, of a heavy tail, counts, and between two bounds."""
    draw = np.random.default_rng(0)
    columns = [draw.normal(size=rows), draw.standard_t(2.5, size=rows), draw.poisson(2.0, size=rows)]
    return np.stack([*columns, draw.uniform(size=rows)], axis=1).astype(np.float32)


def test_a_number_far_from_all_others_that_comes_again_is_a_fill_value() -> None:
    x = table()
    plain = x.var(axis=0, dtype=np.float64)
    x[::100, 3] = -9999.0
    found = fill_values(x)
    assert found is not None
    assert (found.channel, found.value, found.channels, found.share) == (3, -9999.0, 1, 0.0025)
    filled = x.var(axis=0, dtype=np.float64)
    kept = np.delete(x[:, 3], np.s_[::100]).var(dtype=np.float64)
    assert found.variance == pytest.approx((filled[3] - kept) / filled.sum())
    scaled = fill_values((x - x.mean(axis=0)) / x.std(axis=0))
    assert scaled is not None and scaled.channel == 3 and plain[3] == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize(
    "name",
    [
        "as it is", "one outlier", "the same outlier twice", "a rare flag", "clipped", "padding", "scattered",
        "ink on paper", "saturated", "logarithms padded with 0", "an impulse train",
    ],
)  # fmt: skip
def test_what_is_no_fill_value(name: str) -> None:
    x = table()
    if name == "one outlier":
        x[7, 0] = 1e6
    elif name == "the same outlier twice":
        x[7:9, 0] = 1e6
    elif name == "a rare flag":
        x[:, 0] = 0.0
        x[::100, 0] = 1.0
    elif name == "clipped":
        x = x.clip(-2.0, 2.0)
    elif name == "padding":
        x[::2] = 0.0
    elif name == "scattered":
        x[::100, 0] = np.linspace(1e3, 2e3, 20)
    elif name == "ink on paper":
        x = 255 - (x > 0).astype(np.float32)
        x[::20] = 0.0
    elif name == "saturated":
        x = (x - x.min()).clip(0, 16).round()
        x[::100] = 255.0
    elif name == "logarithms padded with 0":
        x = 10 + x
        x[::4] = 0.0
    elif name == "an impulse train":
        x[:, 1] = x[:, 0]
        x[::20, :2] = 50.0
    assert fill_values(x) is None


def test_nothing_of_nothing() -> None:
    assert fill_values(np.empty((0, 3), dtype=np.float32)) is None


class Autoencoder(nn.Module):
    """An autoencoder of measurements, which may mask what is missing."""

    def __init__(self, masks: bool) -> None:
        super().__init__()
        self.masks = masks
        self.encoder, self.decoder = nn.Linear(4, 3), nn.Linear(3, 4)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(16, 3)
        self.quantize.forward = self.look_up  # type: ignore[method-assign]

    def look_up(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = self.quantize.embedding.weight
        z_q = functional.embedding(torch.cdist(z, codes).argmin(1), codes)
        return z + (z_q - z).detach(), functional.mse_loss(z, z_q)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.where(x < -6.9, x.median(0).values, x) if self.masks else x
        z_q, vq = self.quantize(self.encoder(x))
        return self.decoder(z_q), vq


class Exported:
    """A task whose data has -9999 for one value in fifty, standardised with the others."""

    vq_weight = 1.0

    def __init__(self, masks: bool) -> None:
        self.masks = masks
        x = torch.from_numpy(table())
        x[::50] = -9999.0
        self.x = (x - x.mean(0)) / x.std(0)

    def model(self) -> nn.Module:
        return Autoencoder(self.masks)

    def batches(self, split: str) -> Any:
        return self.x.split(500)

    def losses(self, model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
        output, vq = model(x)
        return vqdoctor.Losses(task=functional.mse_loss(output, x), vq=vq)


@pytest.mark.parametrize("masks", [False, True])
def test_a_model_that_gets_them_and_one_that_masks_them(masks: bool, tmp_path: Path) -> None:
    task = Exported(masks)
    torch.save(task.model().state_dict(), tmp_path / "model.pt")
    user = UserModel(task=task)  # type: ignore[arg-type]
    report = examine(tmp_path / "model.pt", user_model=user, settings=Settings(select=("VQ321",)))
    assert [f.code for f in report.findings] == ([] if masks else ["VQ321"])
