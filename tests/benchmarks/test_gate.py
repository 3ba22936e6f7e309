"""`vqdoctor gate` without data against `import torch`, as whole processes.

Ratios against a named peer in one run, in alternating pairs; never a time. `make bench` prints them.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import pytest
from processes import python

pytestmark = pytest.mark.bench

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"
PAIRS = 9


@pytest.fixture
def compiled(tmp_path: Path) -> dict[str, str]:
    """An environment in which bytecode is kept, as pip leaves that of every installed package."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**environment, "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}


def seconds(environment: dict[str, str], *command: str) -> float:
    start = time.perf_counter()
    done = python(*command, env=environment)
    spent = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    return spent


@pytest.mark.parametrize("kind", ["checkpoint", "saved report"])
def test_gate_without_data_takes_a_third_of_importing_torch(
    kind: str, compiled: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = SAMPLES / "healthy-256.pt"
    if kind == "saved report":
        report = tmp_path / "report.json"
        seconds(compiled, "-m", "vqdoctor", "inspect", str(judged), "--save", f"json={report}")
        judged = report
    ours = ("-m", "vqdoctor", "gate", str(judged), "--min-perplexity", "50", "--min-usage", "0.4")
    peer = ("-c", "import torch")
    seconds(compiled, *ours), seconds(compiled, *peer)  # warm the caches
    pairs = [(seconds(compiled, *ours), seconds(compiled, *peer)) for _ in range(PAIRS)]
    ratio = statistics.median(a / b for a, b in pairs)
    mine, torch = (statistics.median(column) for column in zip(*pairs, strict=True))
    with capsys.disabled():
        print(f"\ngate on a {kind}: {mine:.2f} s / import torch {torch:.2f} s = {ratio:.2f}")
    assert ratio <= 0.35
