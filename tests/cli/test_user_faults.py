"""Whatever the user's code does, the exit code is 2 with one line, never 0, and JSON stays whole."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_vqvae

from vqdoctor.cli.main import main

Run = Callable[..., "subprocess.CompletedProcess[str]"]

HEAD = f"""
import os, subprocess, sys
sys.path.append({os.fspath(Path(small_vqvae.__file__).parent)!r})
import torch
from small_vqvae import DigitsTask, VQVAE
"""

FAULTS = {
    "state-dict-exits": (
        "class M(VQVAE):\n  def state_dict(self, *a, **k): sys.exit(0)",
        "SystemExit: 0",
    ),
    "state-dict-exits-as-click": (
        "import typer\nclass M(VQVAE):\n  def state_dict(self, *a, **k): raise typer.Exit(0)",
        "Exit",
    ),
    "forward-exits": ("class M(VQVAE):\n  def forward(self, x): sys.exit(0)", "SystemExit: 0"),
    "a-base-exception": (
        "class Odd(BaseException): pass\nclass M(VQVAE):\n  def forward(self, x): raise Odd('odd')",
        "Odd: odd",
    ),
    "state-dict-raises": (
        "class M(VQVAE):\n  def state_dict(self, *a, **k): raise KeyError('mine')",
        "KeyError: 'mine'",
    ),
    "an-exception-that-cannot-speak": (
        "class Mute(Exception):\n  def __str__(self): raise ValueError('mute')\n"
        "class M(VQVAE):\n  def forward(self, x): raise Mute",
        "Mute",
    ),
    "a-property-that-raises": (
        "class M(VQVAE):\n  @property\n  def training(self): raise RuntimeError('no mode')\n"
        "  @training.setter\n  def training(self, value): pass",
        "no mode",
    ),
    "modules-raises": ("class M(VQVAE):\n  def named_modules(self, *a, **k): raise OSError('gone')", "gone"),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    small_vqvae.save(tmp_path / "ckpt.pt", "model.")
    np.savez(tmp_path / "x.npz", x=small_vqvae.digits()[0][:64].numpy())
    return tmp_path


def inspected(place: Path, code: str, *more: str) -> int:
    name = f"faults_{abs(hash(code))}"
    (place / f"{name}.py").write_text(HEAD + code)
    return main(["inspect", str(place / "ckpt.pt"), "--data", str(place / "x.npz"), "--vq-loss", "vq_loss",
                 "--model", f"{place / name}.py:M", *more])  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_users_code_is_2_and_names_it(
    name: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, says = FAULTS[name]
    assert inspected(place, code) == 2
    out, err = capfd.readouterr()
    assert out == "" and says in err and "bug" not in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1


TASKS = {
    "logits-as-text": ("logits='cat', labels=torch.zeros(len(x), dtype=torch.long)", "logits"),
    "labels-as-text": ("logits=torch.zeros(len(x), 3), labels='cat'", "labels"),
}


@pytest.mark.parametrize("name", TASKS)
def test_what_a_task_returns_is_judged_before_it_is_used(
    name: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fields, says = TASKS[name]
    code = (
        "from vqdoctor import Losses\nclass T(DigitsTask):\n  def losses(self, model, x):\n"
        "    out = model(x)\n    task = ((out['recon'] - x) ** 2).mean()\n"
        f"    return Losses(task=task, vq=out['vq_loss'].sum(), {fields})\ntask = T()\n"
    )
    (place / "odd_task.py").write_text(HEAD + code)
    returned = main(["inspect", str(place / "ckpt.pt"), "--task", f"{place}/odd_task.py:task"])
    _, err = capfd.readouterr()
    assert "bug" not in err
    assert returned == 2 and says in err


STEPS = {
    "returns-nothing": ("def optimizer(self, model): return torch.optim.SGD(model.parameters(), 0.1)",
                        "model(x)", "task.step() returns a NoneType without the field `task`"),
    "returns-a-number": ("def optimizer(self, model): return torch.optim.SGD(model.parameters(), 0.1)",
                         "return {'task': model(x)['recon'].mean().item()}", "task.step().task is a float"),
    "has-no-optimizer": ("", "return {'task': model(x)['recon'].mean()}", "without optimizer()"),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_a_task_that_cannot_be_used_is_2(
    name: str, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    optimizer, body, says = STEPS[name]
    code = f"class T(DigitsTask):\n  losses = None\n  {optimizer}\n  def step(self, model, x):\n    {body}\n"
    (place / "odd_step.py").write_text(f"{HEAD}{code}task = T()\n")
    assert main(["inspect", str(place / "ckpt.pt"), "--task", f"{place}/odd_step.py:task"]) == 2
    _, err = capfd.readouterr()
    assert "bug" not in err and says in err


def test_a_batch_without_samples(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.savez(place / "x.npz", x=np.zeros((0, 1, 8, 8), np.float32))
    assert inspected(place, "M = VQVAE") == 2
    assert "bug" not in capfd.readouterr().err


def test_what_the_code_writes_never_meets_the_report(place: Path, shell: Run) -> None:
    (place / "loud.py").write_text(
        HEAD + "import atexit, ctypes\natexit.register(lambda: os.write(1, b'at the end'))\n"
        "class M(VQVAE):\n  def forward(self, x):\n    os.write(1, b'to the descriptor')\n"
        "    ctypes.CDLL(None).printf(b'from C')\n    os.spawnlp(os.P_WAIT, 'echo', 'echo', 'from a child')\n"
        "    print('a print')\n    return super().forward(x)\n"
    )
    done = shell(
        "inspect", "ckpt.pt", "--data", "x.npz", "--vq-loss", "vq_loss", "--model", "loud.py:M", "-f", "json"
    )
    assert json.loads(done.stdout)["schema"] == 1
    for loud in ("to the descriptor", "from C", "from a child", "a print", "at the end"):
        assert loud in done.stderr
