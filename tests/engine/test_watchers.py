"""The ranks of a distributed training: all count where all watch, and none waits for one that does not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import PATIENCE, start

from vqdoctor.engine import watchers
from vqdoctor.engine.watchers import Watchers
from vqdoctor.probes.live import LayerMemory
from vqdoctor.saved.trace import read_trace

RANK = Path(__file__).with_name("watching_ranks.py")


@pytest.mark.accept
def test_two_ranks_add_up_their_codes_and_none_waits_for_one_without_a_monitor(tmp_path: Path) -> None:
    ranks = [start(RANK, str(rank), tmp_path) for rank in (0, 1)]
    for rank in ranks:
        rank.communicate(timeout=PATIENCE)
    assert [rank.returncode for rank in ranks] == [0, 0]
    both, alone = (read_trace(tmp_path / f"{name}-0.vqtrace.jsonl").of("vq") for name in ("both", "alone"))
    assert [(row.used, row.vectors) for row in both] == [(8, 128), (8, 128)]
    assert [(row.used, row.vectors) for row in alone] == [(4, 64), (4, 64)]
    assert not [*tmp_path.glob("*-1.vqtrace.jsonl")]
    assert [(tmp_path / f"stopped-{rank}").read_text() for rank in (0, 1)] == ["1", "1"]


def test_a_training_that_is_not_distributed_waits_for_nobody() -> None:
    memory = LayerMemory()
    memory.add(np.array([3, 3]), np.array([0, 1]))
    watchers = Watchers.begin(0)
    watchers.settle()
    watchers.gather({"vq": memory})
    assert watchers.agreed("mine") == "mine"
    assert not watchers.idle and memory.chosen()[0].tolist() == [3, 3]


def test_monitors_of_earlier_trainings_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank zero watched one training alone, and began to watch another that never came to a step."""
    store = torch.distributed.HashStore()
    monkeypatch.setattr(watchers, "_store", lambda: store)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    begun = [Counter[int](), Counter[int]()]

    def begin(rank: int) -> Watchers:
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        monkeypatch.setattr(watchers, "_BEGUN", begun[rank])
        return Watchers.begin(0)

    alone = begin(0)
    alone.settle()
    begin(0).end()
    two = [begin(0), begin(1)]
    for rank in two:
        rank.settle()
    last = begin(1)
    last.settle()
    assert [rank.watching for rank in (alone, *two, last)] == [1, 2, 2, 1]


def test_samples_of_other_ranks_are_others() -> None:
    memory = LayerMemory()
    for _ in range(2):
        memory.add(np.array([5, 6, 6]), np.array([0, 0, 1]))
    assert [part.tolist() for part in memory.chosen()] == [[5, 6, 6, 5, 6, 6], [0, 0, 1, 2, 2, 3]]
    memory.forget()
    assert [len(part) for part in memory.chosen()] == [0, 0]
