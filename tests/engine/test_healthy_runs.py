"""A trained healthy model, saved as the usual trainers do: nothing beside the weights counts against it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vqdoctor.engine import examine, exit_code

HEALTHY = Path(__file__).parents[2] / "sample_checkpoints" / "healthy-256.pt"
INFINITE = torch.tensor(float("inf"))


class TrainingArguments:
    """As transformers pickles it."""

    def __init__(self) -> None:
        self.learning_rate, self.per_device_train_batch_size, self.num_train_epochs = 1e-3, 32, 50


def lightning(saved: dict[str, Any], folder: Path) -> Path:
    """A `ModelCheckpoint` without a monitor: its kth_value is infinite in every run."""
    path = folder / "epoch=49-step=2000.ckpt"
    kept = {"ModelCheckpoint{'monitor': None}": {"kth_value": INFINITE, "best_model_score": None}}
    state = {f"model.{key}": value for key, value in saved["model"].items()}
    loops = {"fit_loop": {"epoch_progress": {"current": {"completed": 50}}}}
    whole = {"epoch": 49, "global_step": 2000, "pytorch-lightning_version": "2.4.0", "state_dict": state}
    whole |= {"loops": loops, "callbacks": kept, "optimizer_states": [saved["optimizer"]]}
    torch.save(whole | {"lr_schedulers": [], "hyper_parameters": saved["config"]}, path)
    return path


def hf_trainer(saved: dict[str, Any], folder: Path) -> Path:
    """The folder of a `Trainer`."""
    save_file(
        {key: value.contiguous() for key, value in saved["model"].items()}, folder / "model.safetensors"
    )
    torch.save(saved["optimizer"], folder / "optimizer.pt")
    torch.save({"last_epoch": 2000, "_last_lr": [0.0]}, folder / "scheduler.pt")
    torch.save(TrainingArguments(), folder / "training_args.bin")
    log = [{"epoch": e, "step": 40 * e, "loss": 1 / e, "eval_accuracy": 0.9} for e in range(1, 51)]
    state = {"epoch": 50.0, "global_step": 2000, "log_history": log, "best_metric": None}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    (folder / "config.json").write_text(json.dumps({"model_type": "vq", **saved["config"]}))
    return folder


def gan(saved: dict[str, Any], folder: Path) -> Path:
    """A generator and a discriminator with their optimizers, as taming-transformers saves them."""
    judge = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.LeakyReLU(), torch.nn.Conv2d(8, 1, 3))
    optimizer = torch.optim.Adam(judge.parameters(), betas=(0.5, 0.9))
    for _ in range(5):
        optimizer.zero_grad()
        (1e4 * judge(torch.randn(4, 1, 8, 8))).square().mean().backward()  # far larger than the model's own
        optimizer.step()
    state = dict(saved["model"]) | {f"loss.discriminator.{k}": v for k, v in judge.state_dict().items()}
    states = [saved["optimizer"], optimizer.state_dict()]
    path = folder / "last.ckpt"
    torch.save({"epoch": 49, "global_step": 4000, "state_dict": state, "optimizer_states": states}, path)
    return path


@pytest.mark.parametrize("saved_as", [lightning, hf_trainer, gan])
def test_a_healthy_run_ends_with_0(saved_as: Callable[[dict[str, Any], Path], Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    report = examine(saved_as(torch.load(HEALTHY, weights_only=True), tmp_path))
    assert [f.code for f in report.findings if f.code != "VQ902"] == [] and report.verdict == "healthy"
    assert exit_code(report) == 0
    assert len(report.layers) == 1
