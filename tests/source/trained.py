"""Training a patient: a module of `patients` with its task, in a process of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from processes import python

PATIENTS = Path(__file__).with_name("patients")
NAMES = sorted(file.stem for file in PATIENTS.glob("*.py") if file.stem != "digits_host")
_TRAIN = """
import itertools, sys, torch
module, steps, target = __import__(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
task = module.task
model = task.model()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
batches = itertools.chain.from_iterable(task.batches("train") for _ in itertools.count())
for batch in itertools.islice(batches, steps):
    losses = task.losses(model, batch)
    optimizer.zero_grad()
    (losses.task + task.vq_weight * losses.vq).backward()
    optimizer.step()
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, target)
"""


def copied(name: str, folder: Path) -> Path:
    """Copy a patient and what it imports into a folder, and return the copy."""
    shutil.copy(PATIENTS / "digits_host.py", folder)
    return Path(shutil.copy(PATIENTS / f"{name}.py", folder))


def train(source: Path, target: Path, steps: int) -> Path:
    """Train a patient's model anew, and save it with its optimizer."""
    done = python("-c", _TRAIN, source.stem, str(steps), target, cwd=source.parent)
    assert done.returncode == 0, done.stderr
    return target
