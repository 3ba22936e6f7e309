"""The process group that the user's code sees, as in its own training."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from processes import PATIENCE, start
from rank_groups import TIMES
from ranked import as_rank, free_port

from vqdoctor.core.launcher import Launched
from vqdoctor.models.process_group import _ask_anew, gpu_of


def test_all_processes_of_a_machine_have_a_gpu_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    two = [Launched(rank=rank, size=2, local_rank=rank, local_size=2) for rank in (0, 1)]
    assert [gpu_of(launched) for launched in two] == [None, None]
    on_two_machines = [Launched(rank=rank, size=2) for rank in (0, 1)]
    assert [gpu_of(launched) for launched in on_two_machines] == [torch.device("cuda", 0)] * 2


def test_libraries_ask_anew_whether_they_are_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also beside a name that Python bars from import, which `sys.modules` holds as None."""
    asked: list[None] = []
    library = ModuleType("library")
    library.is_distributed = cache(lambda: asked.append(None))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "barred", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "library", library)
    library.is_distributed()
    _ask_anew()
    library.is_distributed()
    assert len(asked) == 2


def test_processes_find_each_other_as_often_as_they_make_a_group() -> None:
    """A process that came early once reached rank zero's last server, and both waited for ten minutes."""
    port, script = free_port(), Path(__file__).parents[1] / "rank_groups.py"
    with (
        start(script, env=as_rank(0, 2, port), stderr=subprocess.PIPE) as first,
        start(script, env=as_rank(1, 2, port), stderr=subprocess.PIPE) as second,
    ):
        said = [process.communicate(timeout=PATIENCE) for process in (first, second)]
    assert first.returncode == second.returncode == 0, said
    assert [out for out, _ in said] == [str(2 * TIMES)] * 2
