"""The ranks of a distributed training: all count where all watch, and none waits for one that does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from processes import PATIENCE, start
from small_training import Digits, train

from vqdoctor.core.errors import UserError
from vqdoctor.engine.monitor import Monitor
from vqdoctor.engine.watchers import Watchers
from vqdoctor.probes.live import LayerMemory
from vqdoctor.saved.trace import read_trace

RANK = Path(__file__).with_name("watching_ranks.py")


@pytest.mark.accept
def test_two_ranks_count_revive_and_stop_together_and_none_waits_for_one_without(tmp_path: Path) -> None:
    ranks = [start(RANK, str(rank), tmp_path) for rank in (0, 1)]
    for rank in ranks:
        rank.communicate(timeout=PATIENCE)
    assert [rank.returncode for rank in ranks] == [0, 0]
    both, alone = (read_trace(tmp_path / f"{name}-0.vqtrace.jsonl").of("vq") for name in ("both", "alone"))
    assert [(row.used, row.vectors) for row in both] == [(8, 128), (8, 128)]
    assert [(row.used, row.vectors) for row in alone] == [(4, 64), (4, 64)]
    assert not [*tmp_path.glob("*-1.vqtrace.jsonl")]
    codes, others = (torch.load(tmp_path / f"codes-{rank}.pt") for rank in (0, 1))
    assert torch.equal(codes, others)  # bit for bit, although the ranks have other seeds
    moved = (codes[:, 0] - torch.arange(8.0)).abs() + codes[:, 1].abs() > 1e-3
    assert moved.tolist() == 2 * [False, False, True, True]  # 4 and 5 are chosen by the other rank alone
    assert [(tmp_path / f"steps-{rank}").read_text() for rank in (0, 1)] == ["1", "1"]


def test_a_training_that_is_not_distributed_waits_for_nobody() -> None:
    memory = LayerMemory()
    memory.add(np.array([3, 3]), np.array([0, 1]))
    watchers = Watchers.begin(0, "model")
    watchers.settle()
    watchers.gather({"vq": memory})
    assert not watchers.idle and memory.chosen()[0].tolist() == [3, 3]


def test_samples_of_other_ranks_are_others() -> None:
    memory = LayerMemory()
    for _ in range(2):
        memory.add(np.array([5, 6, 6]), np.array([0, 0, 1]))
    assert [part.tolist() for part in memory.chosen()] == [[5, 6, 6, 5, 6, 6], [0, 0, 1, 2, 2, 3]]
    memory.forget()
    assert [len(part) for part in memory.chosen()] == [0, 0]


def test_codes_are_not_revived_on_one_rank_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Watchers(rank=0, world=2, settled=True)
    monkeypatch.setattr("vqdoctor.engine.monitor.Watchers.begin", lambda *_: ranks)
    run = train(2, Digits())
    model = next(run)
    adam = torch.optim.Adam(model.parameters())
    with (
        Monitor(model, out=None, revive=True, optimizer=adam) as monitor,
        pytest.raises(UserError, match="rank zero alone"),
    ):
        for _ in run:
            monitor.step()
