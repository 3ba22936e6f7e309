"""Counts that started at zero beside sums that did not, where smoothing is written back into the counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vqdoctor
from vqdoctor.core.evidence import CodeExpiry, EmaState

CODES, DIM, IN_USE, UPDATES, DECAY, EPSILON = 64, 8, 9, 320, 0.99, 1e-5


def saved(path: Path, start: float, *, shares: bool = False) -> Path:
    """Save the EMA of a layer of which a few codes get all vectors, after some hundred updates."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(CODES, DIM, generator=generator)
    counts, sums, hits = torch.full((CODES,), start), codes.clone(), torch.zeros(CODES)
    hits[:IN_USE] = 100.0
    for _ in range(UPDATES):
        counts = DECAY * counts + (1 - DECAY) * hits
        total = counts.sum()
        counts = (counts + EPSILON) / (total + CODES * EPSILON) * total
        sums = DECAY * sums + (1 - DECAY) * hits[:, None] * codes
    if shares:
        counts = counts / counts.sum()
    state = {
        "vq._embedding.weight": sums / counts[:, None], "vq._ema_cluster_size": counts, "vq._ema_w": sums,
        "decoder.weight": torch.randn(3, DIM, generator=generator),
    }  # fmt: skip
    stored = {"model": state, "config": {"vq_decay": DECAY}, "global_step": UPDATES, "epoch": 8}
    torch.save(stored, path / "model.pt")
    return path / "model.pt"


@pytest.mark.parametrize(("start", "grown"), [(0.0, CODES - IN_USE), (1.0, 0)])
def test_counts_below_what_one_shrinks_to_started_at_zero(tmp_path: Path, start: float, grown: int) -> None:
    report = vqdoctor.examine(saved(tmp_path, start))
    state = report.find(EmaState, "vq")
    assert state is not None and state.start_weight is not None
    assert state.from_zero == grown
    causes = [f.code for f in report.findings if f.explained_by is None and f.severity.label != "note"]
    assert (causes[0] == "VQ304") is (start == 0.0)


def test_shares_of_the_usage_tell_neither_a_start_nor_vectors(tmp_path: Path) -> None:
    report = vqdoctor.examine(saved(tmp_path, 0.0, shares=True))
    state, expiry = report.find(EmaState, "vq"), report.find(CodeExpiry, "vq")
    assert state is not None and state.from_zero == 0
    assert expiry is not None and expiry.epoch_vectors is None
    assert "VQ405" not in {f.code for f in report.findings}


@pytest.mark.parametrize(
    ("in_use", "left", "found"),
    [
        (1, [0.0] * 63, 63),  # counts that no vector ever added to
        (1, [0.0] * 40 + [1e-4 * (1 + i) for i in range(23)], 40),
        (1, [1e-4 * (1 + i / 63) for i in range(63)], 0),  # a start of one that was left one by one
        (1, [1e-4] * 63, 0),  # … or never left
        (2, [1e-4] * 62, 62),  # stored as they were smoothed: the other codes tell how long a code should be
    ],
)
def test_codes_that_are_divided_by_zero(tmp_path: Path, in_use: int, left: list[float], found: int) -> None:
    counts = torch.tensor([100.0 + i for i in range(in_use)] + left)
    codes = torch.randn(CODES, DIM, generator=torch.Generator().manual_seed(0))
    state = {
        "vq._embedding.weight": codes,
        "vq._ema_cluster_size": counts,
        "vq._ema_w": codes * counts[:, None],
    }
    torch.save({"model": state}, tmp_path / "model.pt")
    evidence = vqdoctor.examine(tmp_path / "model.pt").find(EmaState, "vq")
    assert evidence is not None
    assert evidence.divided_by_zero == found
