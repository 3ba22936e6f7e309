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
