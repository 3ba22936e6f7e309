"""A real Trainer of Hugging Face with the monitor beside it, where `accelerate` is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from board import killed, read_board
from small_vqvae import VQVAE, WEIGHT, digits
from torch.nn import functional

from vqdoctor.saved.trace import read_trace

pytest.importorskip("accelerate", reason="the Trainer needs the package accelerate, which is not in `dev`")
pytestmark = pytest.mark.filterwarnings("ignore")

from transformers import Trainer, TrainerCallback, TrainingArguments  # noqa: E402

from vqdoctor.integrations.transformers import VQMonitor  # noqa: E402


class Reconstructs(VQVAE):
    """The user's model with the loss that a Trainer asks for."""

    def forward(self, x: torch.Tensor, labels: Any = None) -> dict[str, Any]:
        out = super().forward(x)
        loss = functional.mse_loss(out["recon"], x) + WEIGHT * out["vq_loss"].sum()
        return {"loss": loss, "recon": out["recon"]}


class Heard(TrainerCallback):
    """A logger among the trainer's own callbacks."""

    def __init__(self) -> None:
        self.lines: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.lines.append(dict(kwargs["logs"]))


def fit(
    folder: Path,
    model: torch.nn.Module,
    steps: int,
    monitor: VQMonitor | None,
    *others: TrainerCallback,
    board: bool = False,
    **more: Any,
) -> Trainer:
    torch.manual_seed(0)
    arguments = TrainingArguments(
        str(folder), max_steps=steps, logging_steps=10, save_steps=20, use_cpu=True,
        report_to=["tensorboard"] if board else [], per_device_train_batch_size=32, disable_tqdm=True, seed=0,
    )  # fmt: skip
    data = [{"x": image} for image in digits()[0][:320]]
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[*others])  # type: ignore[arg-type]
    if monitor is not None:
        monitor.join(trainer)
    trainer.train(**more)
    return trainer


def test_it_changes_nothing_logs_its_figures_and_resumes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain, watched = Reconstructs(), Reconstructs()
    watched.load_state_dict(plain.state_dict())
    fit(tmp_path / "plain", plain, 40, None)
    trace = tmp_path / "run.vqtrace.jsonl"
    heard = Heard()
    monitor = VQMonitor(every=10, out=trace, on_collapse=lambda event: None)
    fit(tmp_path / "a", watched, 40, monitor, heard)
    same = zip(plain.state_dict().values(), watched.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    assert [row.step for row in read_trace(trace).of("vq")] == [10, 20, 30, 40]
    assert sum("vq/vq/perplexity" in line for line in heard.lines) == 4
    again = VQMonitor(every=10, out=trace, on_collapse=lambda event: None)
    fit(tmp_path / "a", Reconstructs(), 40, again, resume_from_checkpoint=str(tmp_path / "a/checkpoint-20"))
    assert [row.step for row in read_trace(trace).of("vq")] == [10, 20, 30, 40]


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_transformers import Reconstructs, VQMonitor, fit
folder = Path(sys.argv[1])
monitor = VQMonitor(every=10, out=folder / "run.vqtrace.jsonl", on_collapse=print)
fit(folder, Reconstructs(), 100_000, monitor, board=True)
"""


def test_a_killed_training_resumes_its_trace_and_its_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="the files are read by the package tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trace = tmp_path / "run.vqtrace.jsonl"
    killed(KILLED, tmp_path, Path(__file__).parent, when=trace, lines=8)
    before = [row.step for row in read_trace(trace).of("vq")]
    whole = [file.parent for file in tmp_path.glob("checkpoint-*/trainer_state.json")]
    saved = max(whole, key=lambda folder: int(folder.name.rsplit("-")[-1]))
    start = int(saved.name.rsplit("-")[-1])
    assert len(before) >= 5 and start <= before[-1] + 10
    monitor = VQMonitor(every=10, out=trace, on_collapse=lambda event: None)
    fit(tmp_path, Reconstructs(), start + 40, monitor, board=True, resume_from_checkpoint=str(saved))
    assert [row.step for row in read_trace(trace).of("vq")] == list(range(10, start + 41, 10))
    scalars, histograms = read_board(tmp_path / "board")
    tag = next(tag for tag in scalars if tag.endswith("vq/vq/perplexity"))
    assert set(scalars[tag]) >= {*range(start + 10, start + 41, 10)}
    assert sum(histograms["vq/vq/usage"].bucket) == pytest.approx(1)


def test_a_stop_is_the_trainers(tmp_path: Path) -> None:
    model = Reconstructs()
    torch.nn.init.constant_(model.encoder[-1].weight, float("nan"))  # type: ignore[arg-type]
    trainer = fit(tmp_path, model, 40, VQMonitor(every=5, out=None, on_collapse="stop"))
    assert trainer.state.global_step < 40
