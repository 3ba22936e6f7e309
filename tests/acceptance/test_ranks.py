"""Trainings of 200 steps in processes of torch's launcher, beside that of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from processes import python
from rank_training import FLOAT32, FLOAT64, STEPS
from ranked import torchrun

pytestmark = pytest.mark.accept
SCRIPT = Path(__file__).parents[1] / "rank_training.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


def codebooks(folder: Path, dtype: str, size: int) -> list[torch.Tensor]:
    """Return the codebooks [steps, K, D] of each process."""
    files = [folder / f"{dtype}-{rank}-of-{size}.pt" for rank in range(size)]
    if not all(file.exists() for file in files):
        arguments = [SCRIPT, dtype, folder]
        done = python(*arguments) if size == 1 else python(*torchrun(size, *arguments))
        assert done.returncode == 0, done.stderr
    return [torch.load(file) for file in files]


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(("dtype", "steps", "within"), [(FLOAT64, STEPS, 1e-8), (FLOAT32, 5, 1e-6)])
def test_several_processes_are_one(folder: Path, dtype: str, steps: int, within: float, size: int) -> None:
    (alone,), several = codebooks(folder, dtype, 1), codebooks(folder, dtype, size)
    assert len(alone) == STEPS + 1
    assert all(torch.equal(one, several[0]) for one in several)
    apart = (several[0] - alone).abs().flatten(1).amax(1)
    print(
        f"{size} processes, {dtype}: {float(apart[: steps + 1].max()):.2g} apart after {steps} steps, "
        f"{float(apart.max()):.2g} after {STEPS}"
    )
    assert float((alone[-1] - alone[0]).abs().max()) > 0.01
    assert float(apart[: steps + 1].max()) < within
