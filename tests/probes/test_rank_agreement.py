"""Codebooks of the launcher's processes: one where a layer shares what each saw, and else several."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from processes import PATIENCE, start
from rank_layers import HEALTHY, SICK
from ranked import as_rank, free_port

from vqdoctor.engine import examine

NONE = "no codebook of its own could be compared"
WITHOUT = ("SimVQ",)
"""Layers whose codes no process writes: they are computed from a frozen table."""
SCRIPT = Path(__file__).parents[1] / "rank_layers.py"


def agreement(folder: Path, names: Sequence[str]) -> dict[str, list[list[int]]]:
    """Return, for each VQ layer of each model, the processes and the codes that differ in two processes."""
    port = free_port()
    with (
        start(SCRIPT, folder, *names, env=as_rank(0, 2, port), stderr=subprocess.PIPE) as first,
        start(SCRIPT, folder, *names, env=as_rank(1, 2, port), stderr=subprocess.PIPE) as second,
    ):
        said = [process.communicate(timeout=PATIENCE)[1] for process in (first, second)]
    assert first.returncode == second.returncode == 0, said
    return json.loads((folder / "agreement.json").read_text())


@pytest.mark.parametrize(
    ("healthy", "sick"),
    [
        (["EMA", "rosinality, all-reduced"], ["started on rank zero alone", "rosinality, not reduced"]),
        pytest.param([*HEALTHY], [*SICK], marks=pytest.mark.accept),
    ],
    ids=["a few", "all"],
)
def test_layers_that_share_and_layers_that_do_not(
    healthy: list[str], sick: list[str], tmp_path: Path
) -> None:
    found = agreement(tmp_path, [*healthy, *sick])
    assert found.keys() == {*healthy, *sick}
    named = {name: in_files(tmp_path, number) for number, name in enumerate([*healthy, *sick])}
    for name in healthy:
        own = found[name] != [NONE] or name in WITHOUT
        assert own and all(one in ([0, 0], NONE) for one in found[name]), name
        assert not named[name], name
    for name in sick:
        assert found[name] and all(differing == 1 and codes > 0 for differing, codes in found[name]), name
        assert named[name], name


def in_files(folder: Path, number: int) -> bool:
    """Whether the files of two processes are found to disagree."""
    report = examine(folder / f"{number}_rank0.pt")
    return "VQ109" in {finding.code for finding in report.findings}
