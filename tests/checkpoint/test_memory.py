"""Memory stays flat on a file far larger than it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hostile_files import safetensors
from processes import python

MIB = 1 << 20

MEASURE = """
import pathlib, sys
from vqdoctor.checkpoint import open_checkpoint
# VmHWM, not ru_maxrss: that one starts from what the process was forked from
peak = lambda: int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
before = peak()
checkpoint = open_checkpoint(sys.argv[1])
assert checkpoint.tensors["vq"].read()[1] == 2
for tensor in checkpoint.tensors.values():
    tensor.sample(65536)
checkpoint.fingerprint([checkpoint.tensors["vq"]])
flat = peak() - before
checkpoint.verify()
verified = peak() - before
checkpoint.tensors["big"].read().copy()
print(flat, verified, peak() - before)
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 MiB of zeros, which take no room on the disk, and a small tensor behind them."""
    path = tmp_path_factory.mktemp("big") / "big.safetensors"
    header = {
        "big": {"dtype": "F32", "shape": [64 * MIB], "data_offsets": [0, 256 * MIB]},
        "vq": {"dtype": "F32", "shape": [3], "data_offsets": [256 * MIB, 256 * MIB + 12]},
    }
    safetensors(path, header)
    with path.open("r+b") as file:
        file.seek(256 * MIB, 2)
        file.write(np.array([1, 2, 3], np.float32).tobytes())
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat(big: Path) -> None:
    done = python("-c", MEASURE, big, check=True)
    flat, verified, whole = map(int, done.stdout.split())
    assert flat < 10 and verified < 30
    assert whole > 200  # the measurement can tell: a copy of the big tensor shows
