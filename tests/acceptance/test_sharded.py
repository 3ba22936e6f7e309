"""`torchrun … inspect --task` where the task's model is sharded by `fully_shard`: examined as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import python
from rank_layers import Signals, library
from ranked import torchrun

pytestmark = pytest.mark.accept
TESTS = Path(__file__).parents[1]
TASK = f"""
import os, sys
sys.path.insert(0, {str(TESTS)!r})
from torch import distributed
from torch.distributed.fsdp import fully_shard
from rank_layers import Signals, library

sharded = "TORCHELASTIC_RUN_ID" in os.environ
if sharded:
    distributed.init_process_group("gloo")


class Sharded(Signals):
    def model(self):
        model = super().model()
        return fully_shard(model) if sharded else model


sound, alone = Sharded(library()), Sharded(library(sync_codebook=False))
"""


def inspected(folder: Path, task: str, *launcher: str | Path) -> dict[str, Any]:
    """Return the report of the model in a folder."""
    asked = ("--task", f"{folder}/task.py:{task}", "-f", "json")
    done = python(*launcher, "-m", "vqdoctor", "inspect", folder / "m.pt", *asked)
    assert done.stdout.startswith("{"), done.stderr
    return json.loads(done.stdout)


def test_it_is_examined_through_its_full_state(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    torch.manual_seed(0)
    task = Signals(library())
    model = task.model().train()
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    for batch in task.batches("train") * 4:
        losses = task.losses(model, batch)
        adam.zero_grad()
        (losses.task + task.vq_weight * losses.vq).backward()
        adam.step()
    torch.save({"model": model.state_dict()}, tmp_path / "m.pt")
    whole, parts = inspected(tmp_path, "sound"), inspected(tmp_path, "sound", *torchrun(2))
    seen = [item for item in parts["evidence"] if item["kind"] != "rank-agreement"]
    assert seen == whole["evidence"] and len(seen) == len(parts["evidence"]) - 1
    assert parts["findings"] == whole["findings"]
    sick = inspected(tmp_path, "alone", *torchrun(2))
    assert "VQ109" in {finding["code"] for finding in sick["findings"]}
