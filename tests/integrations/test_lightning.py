"""A real Trainer of Lightning with the monitor beside it, where `lightning` is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_vqvae import VQVAE, WEIGHT, digits
from torch.nn import functional
from torch.utils.data import DataLoader

from vqdoctor.saved.trace import read_trace

pytest.importorskip("lightning", reason="the callback needs the package lightning, which is not in `dev`")
pytestmark = pytest.mark.filterwarnings("ignore")

from lightning.pytorch import LightningModule, Trainer  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402

from vqdoctor.integrations.lightning import VQMonitor  # noqa: E402


class Reconstructs(LightningModule):
    """A user's module: Lightning calls its steps, and these a part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = VQVAE()

    def training_step(self, x: torch.Tensor, number: int) -> torch.Tensor:
        out = self.net(x)
        return functional.mse_loss(out["recon"], x) + WEIGHT * out["vq_loss"].sum()

    def validation_step(self, x: torch.Tensor, number: int) -> None:
        self.net(x)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def fit(folder: Path, steps: int, *callbacks: VQMonitor, **more: Any) -> tuple[Reconstructs, Trainer]:
    torch.manual_seed(0)
    module = Reconstructs()
    trainer = Trainer(
        max_steps=steps, callbacks=[*callbacks], accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, logger=CSVLogger(str(folder)),
        default_root_dir=str(folder), num_sanity_val_steps=2,
    )  # fmt: skip
    loader: Any = DataLoader(digits()[0][:320], batch_size=32, shuffle=True)  # type: ignore[arg-type]
    trainer.fit(module, loader, DataLoader(digits()[1][:64], batch_size=32), **more)  # type: ignore[arg-type]
    return module, trainer


def test_it_changes_nothing_logs_its_figures_and_resumes(tmp_path: Path) -> None:
    plain, _ = fit(tmp_path / "plain", 40)
    trace = tmp_path / "run.vqtrace.jsonl"
    monitor = VQMonitor(every=10, out=trace, on_collapse=lambda event: None)
    watched, trainer = fit(tmp_path / "a", 40, monitor)
    same = zip(plain.state_dict().values(), watched.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    assert [row.step for row in read_trace(trace).of("vq")] == [10, 20, 30, 40]
    (logged,) = (tmp_path / "a").rglob("metrics.csv")
    assert "vq/vq/perplexity" in logged.read_text().splitlines()[0]
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = VQMonitor(every=10, out=trace, on_collapse=lambda event: None)
    fit(tmp_path / "b", 60, again, ckpt_path=str(tmp_path / "last.ckpt"))
    assert [row.step for row in read_trace(trace).of("vq")] == [10, 20, 30, 40, 50, 60]


def test_a_stop_is_the_trainers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = VQVAE()
    torch.nn.init.constant_(broken.encoder[-1].weight, float("nan"))  # type: ignore[arg-type]
    monkeypatch.setattr(f"{__name__}.VQVAE", lambda: broken)
    _, trainer = fit(tmp_path, 40, VQMonitor(every=5, out=None, on_collapse="stop"))
    assert trainer.global_step < 40
