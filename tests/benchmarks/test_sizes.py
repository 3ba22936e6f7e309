"""A bare inspection of 10 MB to 4 GB: time and memory stay flat. What is compressed or piped is linear.

The files are sparse: their weights are a gap, and only the VQ layer has values.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint.test_memory import LegacyPickler, Storage, Tensor
from processes import python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MB = 1 << 20
GB = 1 << 30
CODES = np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)
NOISE = np.random.default_rng(1).standard_normal(MB // 4).astype(np.float32).tobytes()
INSPECT = """
import contextlib, io, pathlib, resource, sys
from vqdoctor.cli.main import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    code = main(["inspect", sys.argv[1], "-f", "json"])
assert '"name": "vq"' in out.getvalue(), code
used = resource.getrusage(resource.RUSAGE_SELF)
peak = pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(used.ru_utime + used.ru_stime, int(peak) * 1024)
"""
Build = Callable[[Path, int], Path]


def cost(path: Path, *, piped: bool = False) -> tuple[float, int]:
    """Return the seconds of CPU and the peak memory of a bare inspection, with those of Python and numpy."""
    with path.open("rb") if piped else contextlib.nullcontext() as given:
        told = {"stdin": given} if piped else {}
        done = python("-c", INSPECT, "-" if piped else path, check=True, **told)
    cpu, peak = done.stdout.split()
    return float(cpu), int(peak)


def safetensors(path: Path, size: int, big: str = "big", table: str = "vq.codebook") -> Path:
    """A file of one large tensor and a codebook behind it."""
    entries = {
        big: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]},
        table: {"dtype": "F32", "shape": [64, 16], "data_offsets": [size, size + CODES.nbytes]},
    }
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.seek(size, 1)
        file.write(CODES.tobytes())
    return path


def _tree(size: int) -> dict[str, Any]:
    return {"big": Tensor(Storage("0", size // 4)), "vq": {"codebook": Codebook(Storage("1", CODES.size))}}


class Codebook(Tensor):
    """Pickles as torch pickles the codebook over a storage."""

    def __reduce__(self) -> Any:
        function, (storage, offset, _, _, *rest) = super().__reduce__()
        return function, (storage, offset, CODES.shape, (CODES.shape[1], 1), *rest)


class ZipPickler(LegacyPickler):
    """Writes the tree of a zip file, whose storages have no views."""

    def persistent_id(self, obj: Any) -> Any:
        found = super().persistent_id(obj)
        return found and found[:-1]


def torch_zip(path: Path, size: int) -> Path:
    """The same of `torch.save`."""
    with path.open("wb") as raw, zipfile.ZipFile(raw, "w") as archive:
        with archive.open("archive/data.pkl", "w") as pickled:
            ZipPickler(pickled, 2).dump(_tree(size))
        archive.writestr("archive/data/1", CODES.tobytes())
        entry = zipfile.ZipInfo("archive/data/0")
        entry.header_offset, entry.CRC = archive.start_dir, 0
        entry.file_size = entry.compress_size = size
        raw.seek(archive.start_dir)
        raw.write(entry.FileHeader(zip64=True))
        archive.start_dir = raw.seek(size, 1)
        archive.filelist.append(entry)
    return path


def legacy(path: Path, size: int) -> Path:
    """The same in the format before torch 1.6."""
    with path.open("wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(value, file, 2)
        LegacyPickler(file, 2).dump(_tree(size))
        pickle.dump(["0", "1"], file, 2)
        file.write((size // 4).to_bytes(8, "little"))
        file.seek(size, 1)
        file.write(CODES.size.to_bytes(8, "little") + CODES.tobytes())
    return path


def sharded(path: Path, size: int) -> Path:
    """Four shards and their index; the first has the VQ layer."""
    path.mkdir()
    places = {}
    for i in range(4):
        names = f"big{i}", f"norm{i}.weight" if i else "vq.codebook"
        shard = safetensors(path / f"{i}.safetensors", size // 4, *names)
        places |= dict.fromkeys(names, shard.name)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return path


FLAT: dict[str, tuple[Build, int]] = {
    "safetensors": (safetensors, 4 * GB),
    "torch-zip": (torch_zip, 4 * GB),
    "torch-legacy": (legacy, GB),
    "sharded": (sharded, 4 * GB),
}


def require_flat(build: Build, tmp_path: Path, largest: int) -> None:
    """Compare the cost of a file of 10 MB with that of a large one."""
    small, large = (cost(build(tmp_path / f"a{size}", size)) for size in (10 * MB, largest))
    for size, (cpu, peak) in ((10 * MB, small), (largest, large)):
        print(f"\n{build.__name__}: {size / MB:,.0f} MB in {cpu:.2f} s of CPU, {peak / MB:.0f} MB", end="")
    assert large[0] < 1.5 * small[0] + 0.2 and large[1] < small[1] + 20 * MB


def test_a_gigabyte_costs_what_ten_megabytes_do(tmp_path: Path) -> None:
    require_flat(torch_zip, tmp_path, GB)


@pytest.mark.bench
@pytest.mark.parametrize("kind", FLAT)
def test_time_and_memory_are_flat(kind: str, tmp_path: Path) -> None:
    build, largest = FLAT[kind]
    require_flat(build, tmp_path, largest)


def noisy(path: Path, size: int) -> Path:
    """A safetensors file whose large tensor is no gap."""
    safetensors(path, size)
    with path.open("r+b") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        for _ in range(size // MB):
            file.write(NOISE)
    return path


def gzipped(path: Path, size: int) -> Path:
    """That file compressed: its numbers shrink by a tenth."""
    packed = path.with_suffix(".gz")
    with gzip.open(packed, "wb", 1) as file:
        file.write(noisy(path, size).read_bytes())
    return packed


def arrays(path: Path, size: int) -> Path:
    """The same in compressed numpy arrays."""
    packed, big = path.with_suffix(".npz"), np.frombuffer(NOISE * (size // MB), np.float32)
    np.savez_compressed(packed, **{"big": big, "vq.codebook": CODES})
    return packed


@pytest.mark.bench
@pytest.mark.parametrize(
    ("build", "piped"), [(gzipped, False), (noisy, True), (arrays, False)], ids=["gz", "stdin", "npz"]
)
def test_what_is_compressed_or_piped_is_linear(build: Build, piped: bool, tmp_path: Path) -> None:
    sizes = 2 * MB, 25 * MB, 100 * MB
    costs = [cost(build(tmp_path / f"a{size}", size), piped=piped) for size in sizes]
    for size, (cpu, peak) in zip(sizes, costs, strict=True):
        print(f"\n{build.__name__}: {size / MB:,.0f} MB in {cpu:.2f} s of CPU, {peak / MB:.0f} MB", end="")
    (none, least), (some, _), (more, most) = costs
    assert more - none < 1.5 * (100 / 25) * (some - none) + 0.3
    assert most < least + 300 * MB
