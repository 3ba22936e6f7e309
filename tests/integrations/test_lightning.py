"""A real Trainer of Lightning with the monitor beside it, where `lightning` is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from board import killed, read_board
from small_vqvae import VQVAE, WEIGHT, digits
from torch.nn import functional
from torch.utils.data import DataLoader

from vqdoctor.saved.trace import read_trace

pytest.importorskip("lightning", reason="the callback needs the package lightning, which is not in `dev`")
pytestmark = pytest.mark.filterwarnings("ignore")

from lightning.pytorch import LightningModule, Trainer  # noqa: E402
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger  # noqa: E402

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


def fit(
    folder: Path, steps: int, *callbacks: Any, board: bool = False, **more: Any
) -> tuple[Reconstructs, Trainer]:
    torch.manual_seed(0)
    module = Reconstructs()
    trainer = Trainer(
        max_steps=steps, callbacks=[*callbacks], accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1,
        logger=TensorBoardLogger(str(folder)) if board else CSVLogger(str(folder)),
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


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from lightning.pytorch.callbacks import ModelCheckpoint
from test_lightning import VQMonitor, fit
folder = Path(sys.argv[1])
saved = ModelCheckpoint(str(folder), "last-{step}", every_n_train_steps=20, save_top_k=-1)
monitor = VQMonitor(every=10, out=folder / "run.vqtrace.jsonl", on_collapse=print)
fit(folder, 100_000, monitor, saved, board=True)
"""


def test_a_killed_training_resumes_its_trace_and_its_board(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the files are read by the package tensorboard")
    trace = tmp_path / "run.vqtrace.jsonl"
    killed(KILLED, tmp_path, Path(__file__).parent, when=trace, lines=8)
    before = [row.step for row in read_trace(trace).of("vq")]
    saved = max(tmp_path.glob("*.ckpt"), key=lambda file: int(file.stem.rsplit("=")[-1]))
    start = int(saved.stem.rsplit("=")[-1])
    assert len(before) >= 5 and start <= before[-1]
    monitor = VQMonitor(every=10, out=trace, on_collapse=lambda event: None)
    fit(tmp_path, start + 40, monitor, board=True, ckpt_path=str(saved))
    steps = [row.step for row in read_trace(trace).of("vq")]
    assert steps == list(range(10, start + 41, 10))
    scalars, histograms = read_board(tmp_path)
    assert set(scalars["vq/vq/perplexity"]) >= {*range(start + 9, start + 40, 10)}
    assert sum(histograms["vq/vq/usage"].bucket) == pytest.approx(1)


def test_a_stop_is_the_trainers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = VQVAE()
    torch.nn.init.constant_(broken.encoder[-1].weight, float("nan"))  # type: ignore[arg-type]
    monkeypatch.setattr(f"{__name__}.VQVAE", lambda: broken)
    _, trainer = fit(tmp_path, 40, VQMonitor(every=5, out=None, on_collapse="stop"))
    assert trainer.global_step < 40
