"""VQ109 ranks-disagree: by hand-made evidence, and on files that processes saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from judged import says

from vqdoctor.core.evidence import Evidence, RankAgreement
from vqdoctor.engine import examine

SAME = RankAgreement.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [([SAME], "passes"), ([SAME.replace(differing=1, worst=0.5)], "error"), ([], "cannot judge")],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ109", *evidence) == expected


def state(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    codes, counts = torch.randn(32, 8, generator=generator), torch.rand(32, generator=generator) * 9 + 1
    sums = codes * counts[:, None]
    return {"vq.embedding": codes, "vq.ema_cluster_size": counts, "vq.ema_embed_sum": sums}


@pytest.mark.parametrize(
    ("names", "seeds", "found"),
    [
        (["model_rank0.pt", "model_rank1.pt", "model_rank2.pt"], [0, 0, 1], (2, 1)),
        (["rank-0.pt", "rank-1.pt"], [0, 0], (1, 0)),
        (["mp_rank_00_model.pt", "mp_rank_01_model.pt"], [0, 1], None),
        (["model_rank0.pt", "other_rank1.pt"], [0, 1], None),
        (["frank0.pt", "frank1.pt"], [0, 1], None),
        (["tp_rank_00.pt", "tp_rank_01.pt"], [0, 1], None),
        (["adapter_rank4.pt", "adapter_rank8.pt", "adapter_rank16.pt"], [0, 1, 2], None),
        (["best_rank1.pt", "best_rank2.pt"], [0, 1], None),
    ],
)
def test_files_of_processes(
    names: list[str], seeds: list[int], found: tuple[int, int] | None, tmp_path: Path
) -> None:
    for name, seed in zip(names, seeds, strict=True):
        torch.save(state(seed), tmp_path / name)
    (tmp_path / "model_rank9.pt").write_bytes(b"PK\x03\x04")  # a damaged one is passed over
    report = examine(tmp_path / names[0])
    agreement = report.find(RankAgreement, "vq")
    told = None if agreement is None else (agreement.others, agreement.differing)
    assert told == found
    assert ("VQ109" in {finding.code for finding in report.findings}) == (found is not None and found[1] > 0)
    if found and found[1]:
        assert agreement is not None and agreement.worst > 0.5


def test_a_revival_in_each_process_shows_as_a_few_codes(tmp_path: Path) -> None:
    """The typical code is the same then: a median alone would pass it."""
    own, other = state(0), state(0)
    for role in ("vq.embedding", "vq.ema_embed_sum"):
        other[role] = other[role].clone()
        other[role][:3] += 1.0
    torch.save(own, tmp_path / "rank0.pt")
    torch.save(other, tmp_path / "rank1.pt")
    report = examine(tmp_path / "rank0.pt")
    agreement = report.find(RankAgreement, "vq")
    assert agreement is not None and (agreement.differing, agreement.codes) == (1, 3)
    assert agreement.worst == 0.0
    (finding,) = [finding for finding in report.findings if finding.code == "VQ109"]
    assert "3 of its 32 codes are others" in finding.message


def test_seen_at_work_it_is_a_warning() -> None:
    """Buffers may be broadcast in the user's training; the files then hold one codebook."""
    assert says("VQ109", SAME.replace(source="batch", differing=1, codes=32, worst=0.5)) == "warning"
