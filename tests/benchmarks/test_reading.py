"""Reading a checkpoint against `torch.load`, as whole processes, and the memory that it takes.

Ratios against a named peer in one run, in alternating pairs; never a time. `make bench` prints them.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import pytest
import torch
from processes import python

pytestmark = pytest.mark.bench

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"
PAIRS = 7


@pytest.fixture(autouse=True)
def bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every process keep its bytecode, as pip does for what it installs: torch's is there already."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "bytecode"))


def seconds(*command: str) -> float:
    start = time.perf_counter()
    done = python(*command)
    assert done.returncode in (0, 1, 3), done.stderr
    return time.perf_counter() - start


def paired_ratio(ours: tuple[str, ...], peer: tuple[str, ...]) -> tuple[float, float, float]:
    """Return the median of the paired ratios, and the two median times."""
    seconds(*ours), seconds(*peer)  # warm the caches
    pairs = [(seconds(*ours), seconds(*peer)) for _ in range(PAIRS)]
    ratio = statistics.median(a / b for a, b in pairs)
    return ratio, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def inspect(path: Path) -> tuple[str, ...]:
    return ("-m", "vqdoctor", "inspect", str(path), "-f", "json")


def torch_load(path: Path) -> tuple[str, ...]:
    return ("-c", f"import torch; torch.load({str(path)!r}, weights_only=True, mmap=True)")


@pytest.mark.parametrize("sample", ["healthy-256.pt", "no-ste.pt", "dead-codes.pt"])
def test_inspect_takes_half_of_torch_load_at_most(sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = SAMPLES / sample
    ratio, ours, peer = paired_ratio(inspect(path), torch_load(path))
    with capsys.disabled():
        print(f"\ninspect {sample}: {ours:.2f} s / torch.load {peer:.2f} s = {ratio:.2f}")
    assert ratio <= 0.5


def test_memory_stays_flat_on_a_gibibyte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    big = tmp_path / "big.pt"
    layers = {f"decoder.{i}.weight": torch.randn(4096, 4096) for i in range(16)}
    vq = {
        "vq.embedding": torch.randn(512, 64),
        "vq.ema_cluster_size": torch.rand(512) * 10 + 1,
        "vq.ema_embedding_sum": torch.randn(512, 64),
    }
    torch.save({"model": {**vq, **layers}}, big)
    assert big.stat().st_size > 2**30
    script = (
        "import pathlib, runpy, sys\n"
        f"sys.argv = ['vqdoctor', 'inspect', {str(big)!r}, '-f', 'json']\n"
        "try:\n    runpy.run_module('vqdoctor', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(status.split('VmHWM:')[1].split()[0], file=sys.stderr)\n"
    )
    done = python("-c", script, check=True)
    peak = int(done.stderr.split()[-1]) / 1024
    ratio, ours, peer = paired_ratio(inspect(big), torch_load(big))
    with capsys.disabled():
        print(f"\n1 GiB: peak {peak:.0f} MB; {ours:.2f} s / torch.load(mmap) {peer:.2f} s = {ratio:.2f}")
    assert json.loads(done.stdout)["layers"][0]["num_codes"] == 512
    assert peak < 150
    assert ratio <= 0.5
