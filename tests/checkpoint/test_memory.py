"""Memory stays flat on a file far larger than it."""

import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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


class Storage:
    """A storage of floats, of which a pickle says the place alone."""

    def __init__(self, key: str, size: int) -> None:
        self.key, self.size = key, size


class Tensor:
    """Pickles as torch pickles a flat tensor over a storage."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def __reduce__(self) -> Any:
        size = self.storage.size
        return torch._utils._rebuild_tensor_v2, (self.storage, 0, (size,), (1,), False, OrderedDict())


class LegacyPickler(pickle.Pickler):
    """Writes the tree of a legacy file."""

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Storage):
            return "storage", torch.FloatStorage, obj.key, "cpu", obj.size, None
        return None


def _big_legacy(path: Path) -> Path:
    """256 MiB of zeros in the format of `torch.save` before torch 1.6, with gaps for what is zero."""
    tree = {"big": Tensor(Storage("0", 64 * MIB)), "vq": Tensor(Storage("1", 3))}
    with path.open("wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(value, file, 2)
        LegacyPickler(file, 2).dump(tree)
        pickle.dump(["0", "1"], file, 2)
        file.write((64 * MIB).to_bytes(8, "little"))
        file.seek(256 * MIB, 1)
        file.write((3).to_bytes(8, "little") + np.array([1, 2, 3], np.float32).tobytes())
    return path


@pytest.fixture(scope="module", params=["safetensors", "torch-legacy"])
def big(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 MiB of zeros, which take no room on the disk, and a small tensor behind them."""
    path = tmp_path_factory.mktemp("big") / f"big.{request.param}"
    if request.param == "torch-legacy":
        return _big_legacy(path)
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
