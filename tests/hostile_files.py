"""Hostile and odd files, built on demand, with what an inspection must make of each.

`HOSTILE_FILES` maps a name to a `HostileFile`; `build(path)` puts the file (or folder, or FIFO)
at `path`. The tests of the reader open each in process, those of the command line in a subprocess.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import json
import os
import pathlib
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

GIT_LFS = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
)
HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body></body></html>\n"


@dataclass(frozen=True, kw_only=True)
class HostileFile:
    """One odd file.

    Attributes:
        build: puts it at a path.
        suffix: the ending that its name should have.
        exit_code: what `vqdoctor inspect` must return.
        says: a part of the error's or report's text, in lower case.
        on_read: whether it opens, and only reading the codebook shows the damage.
    """

    build: Callable[[Path], Any]
    suffix: str = ".pt"
    exit_code: int = 2
    says: str
    on_read: bool = False


def codebook_state(num_codes: int = 64, dim: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a healthy VQ layer of the reference layout."""
    generator = torch.Generator().manual_seed(seed)
    codebook = torch.randn(num_codes, dim, generator=generator)
    counts = 100 + 20 * torch.rand(num_codes, generator=generator)
    return {
        "vq.embedding": codebook,
        "vq.ema_cluster_size": counts,
        "vq.ema_embedding_sum": codebook * counts[:, None],
    }


def healthy(path: Path) -> None:
    """A checkpoint with nothing odd in it."""
    torch.save({"model": codebook_state(), "epoch": 300}, path)


def canary(path: Path) -> Path:
    """The file that appears if the code in the file at `path` is ever run."""
    return path.parent / (path.name + ".canary")


def torch_zip(path: Path, data_pkl: bytes, records: Mapping[str, bytes] | None = None) -> None:
    """Write a zip as `torch.save` lays it out, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/byteorder", b"little")
        for name, data in (records or {}).items():
            archive.writestr(f"archive/data/{name}", data)


def rezip(path: Path, changes: Mapping[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> None:
    """Write the zip file at `path` anew, with some records (by the end of their name) changed or dropped."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in records.items():
            short = name.partition("/")[2]
            new = changes.get(short, data)
            if new is not None:
                archive.writestr(name, new)


def record_offset(path: Path, short: str) -> int:
    """Return where the bytes of a stored record begin in the file."""
    with zipfile.ZipFile(path) as archive:
        (info,) = (i for i in archive.infolist() if i.filename.partition("/")[2] == short)
    raw = path.read_bytes()
    name, extra = struct.unpack_from("<2H", raw, info.header_offset + 26)
    return info.header_offset + 30 + name + extra


class Calls:
    """Pickles as a call of `function`, which an ordinary unpickler would make."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


class PickledModule(torch.nn.Module):
    """A module to be pickled whole, with a codebook, and a statistic that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.vq = torch.nn.Module()
        for key, value in codebook_state().items():
            self.vq.register_buffer(key.removeprefix("vq."), value)
        self.decoder = torch.nn.Linear(16, 2)
        self.code_sum = torch.ones(3)


def _bytes(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def _cut(path: Path) -> None:
    healthy(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def _without_data_pkl(path: Path) -> None:
    healthy(path)
    rezip(path, {"data.pkl": None})


def _missing_record(path: Path) -> None:
    healthy(path)
    rezip(path, {"data/0": None})


def _short_record(path: Path) -> None:
    healthy(path)
    rezip(path, {"data/0": b"\x00" * 100})


def _flipped_bit(path: Path) -> None:
    healthy(path)
    raw = bytearray(path.read_bytes())
    raw[record_offset(path, "data/0") + 100] ^= 1
    path.write_bytes(raw)


def _forged_shape(path: Path) -> None:
    storage = codebook_state()["vq.embedding"]._typed_storage()
    rebuild = torch._utils._rebuild_tensor_v2
    forged = Calls(rebuild, storage, 0, (10**6, 10**6), (10**6, 1), False, collections.OrderedDict())
    torch.save({"vq.embedding": forged}, path)


def _stride_bomb(path: Path) -> None:
    torch.save({"vq.embedding": torch.zeros(1).expand(10**9, 100)}, path)


def _zip_bomb(path: Path) -> None:
    healthy(path)
    rezip(path, {"data/0": bytes(256 << 20)}, zipfile.ZIP_DEFLATED)


def _symlink_loop(path: Path) -> None:
    path.symlink_to(path.name)


def _legacy_cut(path: Path) -> None:
    torch.save({"model": codebook_state()}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])


def _gzip_bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(bytes(300 << 20), 1))


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())


def _torch_script(path: Path) -> None:
    # Laid out as torch.jit.save does it: data.pkl, constants.pkl, code/.
    torch_zip(path, pickle.dumps({}, 2))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps((), 2))
        archive.writestr("archive/code/__torch__.py", "class Model(Module):\n  pass\n")


def _npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3))


def _os_system(path: Path) -> None:
    evil = Calls(os.system, f"touch '{canary(path)}'")
    torch.save({"model": codebook_state(), "evil": evil}, path)


def _builtins_eval(path: Path) -> None:
    evil = Calls(eval, f"open({str(canary(path))!r}, 'w')")
    torch.save({"model": codebook_state(), "evil": evil}, path)


def _nan(path: Path) -> None:
    state = codebook_state()
    state["vq.embedding"][3, 5] = float("nan")
    torch.save({"model": state}, path)


def _no_vq_layer(path: Path) -> None:
    torch.save({"encoder.weight": torch.randn(8, 3), "encoder.bias": torch.zeros(8)}, path)


def _pickled_module(path: Path) -> None:
    torch.save(PickledModule(), path)


def _foreign_values(path: Path) -> None:
    values = {
        "args": argparse.Namespace(lr=1e-3, vq_weight=0.1),
        "best": np.float64(0.97),
        "root": pathlib.PurePosixPath("/data/digits"),
    }
    torch.save({"model": codebook_state(), **values}, path)


def _deep(path: Path) -> None:
    torch_zip(path, b"\x80\x02" + b"]" * 60_000 + b"a" * 59_999 + b".")


def _deep_tuples(path: Path) -> None:
    torch_zip(path, b"\x80\x02)" + b"\x85" * 200_000 + b".")


def billion_laughs(levels: int = 60) -> bytes:
    """A pickle of a list of two references to a list of two references, and so on."""
    parts = [b"\x80\x02]q\x00"]
    for i in range(levels):
        put, get = b"q" + bytes([i + 1]), b"h" + bytes([i])
        parts.append(b"0]" + put + b"(" + get + get + b"e")
    return b"".join(parts) + b"."


def safetensors(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> None:
    """Write a safetensors file with any header (text, or what JSON can say) and any stated length."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)


def _entry(start: int, end: int, shape: tuple[int, ...] = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def _st(*args: Any, **kwargs: Any) -> Callable[[Path], Any]:
    return lambda path: safetensors(path, *args, **kwargs)


_TWICE = b'{"a":%s,"a":%s}' % ((b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}',) * 2)

SAFETENSORS_ABUSES: dict[str, HostileFile] = {
    f"safetensors-{name}": HostileFile(build=build, suffix=".safetensors", says=says)
    for name, build, says in (
        ("too-short", _bytes(b"\x01\x02\x03\x04"), "truncated"),
        ("absurd-length", _st({}, length=2**63), "absurdly long"),
        ("length-past-the-end", _st({}, length=5000), "truncated"),
        ("no-object", _st(b"[1, 2, 3]"), "not a json object"),
        ("no-json", _st(b'{"a": {'), "not valid json"),
        ("no-utf8", _st(b'{"\xff\xfe": 1}'), "not valid json"),
        ("deep-json", _st(b'{"a":' * 100_000), "not valid json"),
        ("named-twice", _st(_TWICE, bytes(8)), "twice"),
        ("overlap", _st({"a": _entry(0, 8), "b": _entry(4, 12)}, bytes(12)), "overlaps"),
        ("gap", _st({"a": _entry(0, 8), "b": _entry(16, 24)}, bytes(24)), "gap"),
        ("cut-data", _st({"a": _entry(0, 8)}, bytes(7)), "truncated"),
        ("trailing-data", _st({"a": _entry(0, 8)}, bytes(9)), "bytes follow"),
        ("forged-shape", _st({"a": _entry(0, 8, (2**31, 2**31))}, bytes(8)), "forged"),
        ("overflowing-shape", _st({"a": _entry(0, 8, (2**62, 4, 2**62))}, bytes(8)), "forged"),
        ("negative-shape", _st({"a": _entry(0, 8, (-2, -1))}, bytes(8)), "no valid way"),
        ("backward-offsets", _st({"a": _entry(8, 0)}, bytes(8)), "no valid way"),
        ("huge-number", _st(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}"), "not valid json"),
        ("metadata-no-text", _st({"__metadata__": {"a": 1}}), "__metadata__"),
    )
}

HOSTILE_FILES: dict[str, HostileFile] = {
    "empty": HostileFile(build=_bytes(b""), says="empty"),
    "cut": HostileFile(build=_cut, says="truncated"),
    "text": HostileFile(build=_bytes(b"epoch,loss\n1,0.5\n"), says="text file"),
    "html": HostileFile(build=_bytes(HTML), says="html"),
    "git-lfs": HostileFile(build=_bytes(GIT_LFS), says="git-lfs"),
    "git-lfs-safetensors": HostileFile(build=_bytes(GIT_LFS), suffix=".safetensors", says="git-lfs"),
    "fifo": HostileFile(build=os.mkfifo, says="named pipe"),
    "folder": HostileFile(build=Path.mkdir, suffix="", says="folder without a checkpoint"),
    "missing": HostileFile(build=lambda path: None, says="no such file"),
    "symlink-loop": HostileFile(build=_symlink_loop, says="loop"),
    "zeros": HostileFile(build=_bytes(bytes(5000)), says="zero bytes"),
    "noise": HostileFile(build=_bytes(bytes(range(255, 0, -1)) * 20), says="no kind of checkpoint"),
    "json": HostileFile(build=_bytes(b'{"weight_map": {}}'), suffix=".json", says="sharded"),
    "gzip-of-nothing-known": HostileFile(build=_bytes(gzip.compress(b"x")), says="text file"),
    "gzip-cut": HostileFile(build=_bytes(gzip.compress(bytes(range(256)) * 64)[:-30]), says="truncated"),
    "gzip-bomb": HostileFile(build=_gzip_bomb, says="gzip bomb"),
    "tar": HostileFile(build=_tar, says="tar"),
    "npz": HostileFile(build=_npz, says="numpy"),
    "pickle": HostileFile(build=_bytes(pickle.dumps({"a": 1})), says="bare pickle"),
    "legacy-cut": HostileFile(build=_legacy_cut, says="truncated"),
    "torchscript": HostileFile(build=_torch_script, exit_code=3, says="torchscript"),
    "zip-without-data-pkl": HostileFile(build=_without_data_pkl, says="without data.pkl"),
    "missing-record": HostileFile(build=_missing_record, says="data/0 is missing"),
    "short-record": HostileFile(build=_short_record, says="data/0 is cut short"),
    "flipped-bit": HostileFile(build=_flipped_bit, says="checksum", on_read=True),
    "forged-shape": HostileFile(build=_forged_shape, says="forged"),
    "stride-bomb": HostileFile(build=_stride_bomb, says="forged"),
    "zip-bomb": HostileFile(build=_zip_bomb, says="zip bomb"),
    "os-system": HostileFile(build=_os_system, exit_code=1, says="system"),
    "builtins-eval": HostileFile(build=_builtins_eval, exit_code=1, says="eval"),
    "nan": HostileFile(build=_nan, exit_code=1, says="nan"),
    "pickled-module": HostileFile(build=_pickled_module, exit_code=0, says="pickledmodule"),
    "foreign-values": HostileFile(build=_foreign_values, exit_code=0, says="argparse.namespace"),
    "no-vq-layer": HostileFile(build=_no_vq_layer, exit_code=3, says="encoder.weight"),
    "deep": HostileFile(build=_deep, exit_code=3, says="nested"),
    "deep-tuples": HostileFile(build=_deep_tuples, exit_code=3, says="nested"),
    "billion-laughs": HostileFile(
        build=lambda path: torch_zip(path, billion_laughs()), exit_code=3, says="shared"
    ),
    "a-list": HostileFile(build=lambda path: torch.save([1, 2], path), exit_code=3, says=""),
    "an-int": HostileFile(build=lambda path: torch.save(7, path), exit_code=3, says=""),
    "empty-dict": HostileFile(build=lambda path: torch.save({}, path), exit_code=3, says=""),
    **SAFETENSORS_ABUSES,
}
