"""Bombs: small files that ask for much work or memory, a builder for each kind.

`BOMBS` maps a kind to a builder; it returns the files of the bomb by name, and the first is the one to give.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import math
import random
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from forged_pickles import call, named, number, numbers, text
from hostile_files import torch_zip

Files = dict[str, bytes]
Builder = Callable[[random.Random], Files]
BOMBS: dict[str, Builder] = {}
_STEPS = 950_000
"""Steps of a pickle machine that are just about granted."""


def _bomb(build: Builder) -> Builder:
    BOMBS[build.__name__.strip("_")] = build
    return build


def zip_of(pickle: bytes, records: dict[str, bytes] | None = None) -> bytes:
    """Return the file of `torch.save` around a pickle."""
    with tempfile.TemporaryDirectory() as folder:
        torch_zip(Path(folder) / "a.pt", pickle, records)
        return (Path(folder) / "a.pt").read_bytes()


def _old(tree: bytes) -> bytes:
    """Return an old file around the pickle of its tree, without a storage."""
    magic = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
    return magic + b"\x80\x02M\xe9\x03." + b"\x80\x02}." + tree + b"\x80\x02]."


_UNITS: dict[bytes, int] = {
    b"]": 100_000, b"}": 100_000, b"(": 280_000, b"K\1": _STEPS, b"]\x94": 90_000, b"ca\nb\n": 60_000,
    b"h\0": _STEPS, named("os.system"): 60_000, b"}" + text("vq_decay") + b"K\1s": 95_000,
    b"}" + text("loss") + b"G?\xe0\0\0\0\0\0\0s": 95_000, b"K\1\x85": 95_000, b"]K\1a": 95_000,
    b"ca\nb\n)R": 35_000, b"Vabcd\n": 380_000, text("a"): _STEPS, b"\x8a\1\1": _STEPS, b")": 99_000,
    b"}(" + b"".join(text(f"{i:03d}") + b"K\1" for i in range(100)) + b"u": 5500,
    (b"}" + text("a")) * 20 + b"N" + b"s" * 20: 4500,
}  # fmt: skip
"""A piece of a pickle, and how many of it are about the most that is granted."""


@_bomb
def _pickle(rng: random.Random) -> Files:
    unit, most = rng.choice(list(_UNITS.items()))
    count = int(most * rng.choice((0.1, 0.9, 1.0, 2.0)))
    return {"a.pt": zip_of(b"\x80\x04]q\0(" + unit * count + b"l.")}


@_bomb
def _old_pickle(rng: random.Random) -> Files:
    unit, most = rng.choice(list(_UNITS.items()))
    return {"a.pt": _old(b"\x80\x04]q\0(" + unit * int(most * rng.choice((0.5, 1.0))) + b"l.")}


@_bomb
def _long_names(rng: random.Random) -> Files:
    depth = rng.choice((5, 7, 150))
    below = b"](" + rng.choice((b"]", b"K\1", b"}" + text("decay") + b"K\1s")) * 90_000 + b"e"
    names = b"".join(b"}" + text(f"{i}" + "k." * 500) for i in range(depth))
    return {"a.pt": zip_of(b"\x80\x02" + names + below + b"s" * depth + b".")}


@_bomb
def _settings(rng: random.Random) -> Files:
    words = ("decay", "epoch", "lr", "num_classes", "val_acc", "vq_loss", "class_names")
    items = b"".join(
        text(f"{rng.choice(words)}.{i}.{rng.choice(words)}") + rng.choice((b"K\1", b"](K\1K\2e"))
        for i in range(60_000)
    )
    return {"a.pt": zip_of(b"\x80\x02}" + text("hyper_parameters") + b"}(" + items + b"us.")}


@_bomb
def _optimizer(rng: random.Random) -> Files:
    one = b"}(" + text("step") + b"K\1" + text("exp_avg") + b"Nu"
    states = b"".join(number(i) + one for i in range(60_000))
    ids = b"](" + b"".join(map(number, range(60_000))) + b"e"
    group = b"](}(" + text("params") + ids + text("lr") + b"K\1ue"
    return {
        "a.pt": zip_of(
            b"\x80\x02}(" + text("state") + b"}(" + states + b"u" + text("param_groups") + group + b"u."
        )
    }


def _tensors(
    names: list[str], shape: tuple[int, ...], strides: tuple[int, ...], stored: int, step: int = 0
) -> bytes:
    pid = (
        b"("
        + text("storage")
        + named("torch.FloatStorage")
        + text("0")
        + text("cpu")
        + number(stored)
        + b"tQ"
    )
    where = numbers(shape), numbers(strides), b"\x89", b"N"
    rebuild = named("torch._utils._rebuild_tensor_v2") + b"q\3" + b"0"
    one = b"".join(where) + b"tR"
    items = b"".join(text(name) + b"h\3(h\2" + number(i * step) + one for i, name in enumerate(names))
    values = random.Random(0).randbytes(3 << 10) + bytes(1 << 10)
    data = (values * (stored // 1024 + 1))[: 4 * stored]
    return zip_of(b"\x80\x02" + pid + b"q\2" + b"0" + rebuild + b"}(" + items + b"u.", {"0": data})


@_bomb
def _many_layers(rng: random.Random) -> Files:
    name = rng.choice(
        ("m{}.vq.embedding", "m{}.codebook.weight", "q.layers.{}._codebook.embed", "m.{}.weight")
    )
    step, count = rng.choice((0, 128)), rng.choice((1000, 15_000))
    return {
        "a.pt": _tensors([name.format(i) for i in range(count)], (16, 8), (8, 1), 128 + step * count, step)
    }


@_bomb
def _gaps(rng: random.Random) -> Files:
    name = rng.choice(("m{}.vq.embedding", "m.{}.weight"))
    return {"a.pt": _tensors([name.format(i) for i in range(12)], (2_000_000, 2), (4, 2), 8_000_000)}


@_bomb
def _long_keys(rng: random.Random) -> Files:
    part = rng.choice(("vq.", "a.", "_", "layers.0.", "codebook"))
    long = part * (1000 // len(part))
    return {"a.pt": _tensors([f"{long}{i}" for i in range(8000)], (4, 2), (2, 1), 8)}


def _safetensors(header: bytes, data: bytes = bytes(8)) -> Files:
    return {"a.safetensors": len(header).to_bytes(8, "little") + header + data}


@_bomb
def _shape(rng: random.Random) -> Files:
    sizes = [rng.choice(("1", "0", "4611686018427387904"))] * 30_000
    shape = ",".join([*sizes, "2"])
    return _safetensors(
        f'{{"vq.embedding":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,8]}}}}'.encode()
    )


@_bomb
def _header(rng: random.Random) -> Files:
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return _safetensors(
        rng.choice(
            (
                "{" + '"a":{' * 100_000,
                '{"a":' + "[" * 100_000,
                '{"a":[' + "{}," * 2_600_000 + "{}]}",
                '{"a":[' + "1," * 3_900_000 + "1]}",
                "{" + ",".join(f'"{i}.vq.embed":{entry}' for i in range(19_000)) + "}",
                '{"__metadata__":{"vqdoctor":"[' + "[]," * 300_000 + '[]]"}}',
                '{"a":' + "9" * 4000 + "}",
            )
        ).encode()
    )


@_bomb
def _tables(rng: random.Random) -> Files:
    shape = rng.choice(
        ((4000, 4000), (8_000_000, 2), (2, 8_000_000), (300_000, 4, 8), (300, 50_000), (300_000, 16))
    )
    name = rng.choice(("vq.embedding.weight", "vq._codebook.embed", "vq.codebook"))
    table = random.Random(0).randbytes(3 << 10) + bytes(1 << 10)
    size = 4 * math.prod(shape)
    about = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}
    return _safetensors(json.dumps(about).encode(), (table * (size // len(table) + 1))[:size])


@_bomb
def _shards(rng: random.Random) -> Files:
    index = "model.safetensors.index.json"
    shard = _safetensors(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}')["a.safetensors"]
    match rng.randrange(4):
        case 0:
            places = {f"m.{i}.weight": f"{i}.safetensors" for i in range(1_000_000)}
            return {index: json.dumps({"weight_map": places}).encode()}
        case 1:
            up = {"a": "../../../etc/passwd", "b": "/etc/passwd", "c": "a/../../b"}
            return {index: json.dumps({"weight_map": up}).encode(), "0.safetensors": shard}
        case 2:
            places = {f"m.{i}.weight": "0.safetensors" for i in range(700_000)}
            return {index: json.dumps({"weight_map": places}).encode(), "0.safetensors": shard}
    one = zip_of(b"\x80\x04](" + b"K\1" * 400_000 + b"e.")
    places = {f"m.{i}": f"{i}.bin" for i in range(8)}
    return {index: json.dumps({"weight_map": places}).encode()} | {f"{i}.bin": one for i in range(8)}


def _placed(name: str, offset: int, length: int) -> tuple[bytes, bytes, bytes]:
    """Return the opcodes of a tensor's name with its metadata, and of its index with its place."""
    own = "torch.distributed.checkpoint.metadata"
    sizes = call("torch.Size", numbers((2,)))
    chunk = (
        named(f"{own}.ChunkStorageMetadata")
        + b")\x81}("
        + text("offsets")
        + call("torch.Size", numbers((0,)))
    )
    chunk += text("sizes") + sizes + b"ub"
    about = named(f"{own}.TensorStorageMetadata") + b")\x81}(" + text("size") + sizes + text("chunks")
    about += b"](" + chunk + b"eub"
    index = named(f"{own}.MetadataIndex") + b")\x81}(" + text("fqn") + text(name) + text("offset")
    index += call("torch.Size", numbers((0,))) + b"ub"
    place = named("torch.distributed.checkpoint.filesystem._StorageInfo") + b")\x81}(" + text("relative_path")
    place += text("a.distcp") + text("offset") + number(offset) + text("length") + number(length) + b"ub"
    return text(name) + about, index, place


@_bomb
def _pieces(rng: random.Random) -> Files:
    piece = zip_of(rng.choice((b"\x80\x04](" + b"K\1" * 300_000 + b"e.", b"\x80\x02}.")))
    parts = [_placed(f"m{i}", 0, len(piece)) for i in range(rng.choice((10, 2500)))]
    own = named("torch.distributed.checkpoint.metadata.Metadata") + b")\x81}("
    listed = text("state_dict_metadata") + b"}(" + b"".join(about for about, _, _ in parts) + b"u"
    places = text("storage_data") + b"}(" + b"".join(index + place for _, index, place in parts) + b"u"
    return {".metadata": b"\x80\x02" + own + listed + places + b"ub.", "a.distcp": piece}


@functools.cache
def _deflated_zeros(size: int) -> bytes:
    packer, zeros, left = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(1 << 20), size
    parts = []
    while left:
        parts.append(packer.compress(zeros[: min(left, 1 << 20)]))
        left -= min(left, 1 << 20)
    return b"".join(parts) + packer.flush()


@_bomb
def _gzip(rng: random.Random) -> Files:
    size = rng.choice((200 << 20, 2 << 30))
    inner = _deflated_zeros(size)
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    if rng.random() < 0.5:
        return {"a.pt.gz": gzip.compress(_old(b"\x80\x02](" + b"h\0" * 10 + b"e.")) * 1000}
    return {"a.pt.gz": head + inner + struct.pack("<II", 0, size & 0xFFFFFFFF)}


def npy(shape: str, code: str = "<f4", data: bytes = b"") -> bytes:
    """Return a .npy file that states a shape."""
    header = f"{{'descr': '{code}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + data


@_bomb
def _numpy(rng: random.Random) -> Files:
    hostile = rng.choice(
        (npy("(" * 20_000), npy("(" + "1," * 30_000 + ")"), npy("-" * 30_000 + "1"),
         npy("(" + "9" * 1900 + ",)"), npy("(4,)", "<f4", bytes(16)),
         npy("()", "|O"), npy("(3,)", "|V999999999"))
    )  # fmt: skip
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(rng.choice((1, 3000))):
            archive.writestr(f"vq{i}.npy" if rng.random() < 0.99 else f"x{i}.npy", hostile)
    return {rng.choice(("weights.npz.pt", "batch.npz")): out.getvalue()}


@_bomb
def _batch(rng: random.Random) -> Files:
    rows = rng.choice((1 << 19, (250 << 20) // 12))
    raw = npy(f"({rows}, 3)")
    packed = zlib.compressobj(1, zlib.DEFLATED, -15)
    size = len(raw) + rows * 12
    parts = [packed.compress(raw)]
    noise = rng.randbytes(1 << 14) + bytes(1 << 20)
    left = rows * 12
    while left:
        part = noise[: min(left, len(noise))]
        parts.append(packed.compress(part))
        left -= len(part)
    data = b"".join(parts) + packed.flush()
    name = rng.choice((b"z_e.npy", b"x.npy", b"indices.npy"))
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(data), size, len(name), 0) + name
    central = (
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(data), size, len(name), *[0] * 6)
        + name
    )
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local) + len(data), 0)
    return {"batch.npz": local + data + central + end}


@_bomb
def _zip(rng: random.Random) -> Files:
    name, count = b"archive/data.pkl", rng.choice((2, 1000, 20_000))
    extra = rng.choice((b"", struct.pack("<HH", 9, 0) * 16_000, struct.pack("<HHQ", 1, 8, 0) * 5000))
    if len(extra) * count > 50 << 20:
        count = (50 << 20) // len(extra)
    body = struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, 4, 4, len(name), 0) + name + b"\x80\x02}."
    same = rng.random() < 0.5
    entries, bodies = [], []
    for i in range(count):
        own = name if i == 0 or same else b"archive/data/%d" % i
        at = 0 if same else sum(map(len, bodies[:1])) * i
        wide = rng.random() < 0.5
        big = 0xFFFFFFFF if wide else 4
        more = struct.pack("<HHQQ", 1, 16, 4, 4) if wide else b""
        head = struct.pack(
            "<4s6H3I5H2I",
            b"PK\1\2",
            45,
            45,
            0,
            0,
            0,
            0,
            0,
            big,
            big,
            len(own),
            len(more + extra),
            0,
            0,
            0,
            0,
            at,
        )
        entries.append(head + own + more + extra)
        if not same or i == 0:
            bodies.append(body)
    directory, data = b"".join(entries), b"".join(bodies)
    end = struct.pack(
        "<4s4H2IH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(directory), len(data), 0
    )
    return {"a.pt": data + directory + end}


@_bomb
def _report(rng: random.Random) -> Files:
    layer = '{"name":"q%d","layout":"x","layout_confidence":"high","num_codes":4,"dim":3}'
    return {
        "report.json": rng.choice(
            (
                '{"schema":1,"a":' + "[" * 100_000,
                '{"schema":1,"a":[' + "[]," * 3_000_000 + "[]]}",
                '{"schema":1,"a":[' + "1.5," * 6_000_000 + "1]}",
                '{"schema":1,"layers":[' + ",".join(layer % i for i in range(50_000)) + "]}",
                '{"reports":[' + '{"schema":1},' * 90_000 + '{"schema":1}]}',
                '{"schema":1,"' + "a" * 20_000_000 + '":1}',
                '{"schema":' + "9" * 4000 + "}",
            )
        ).encode()
    }


@_bomb
def _pyproject(rng: random.Random) -> Files:
    return {
        "pyproject.toml": rng.choice(
            (
                ".".join("a" * 100_000) + "=1",
                "".join(".".join("a" * 1000) + f".b{i}=1\n" for i in range(250)),
                "b={" + ",".join(".".join("a" * 900) + f".b{i}=1" for i in range(280)) + "}",
                "a=" + "[" * 100_000,
                "[[a]]\n" * 1_000_000,
                "[tool.vqdoctor]\nignore=[" + '"VQ5",' * 60_000 + "]",
                "[tool.vqdoctor]\n" + "".join(f"a{i}=1\n" for i in range(50_000)),
                'a="' + "x" * 5_000_000 + '"',
                "a=" + "1" * 400_000,
            )
        ).encode()
    }


@_bomb
def _trainer_state(rng: random.Random) -> Files:
    state = rng.choice(
        (
            '{"log_history":[' + "[]," * 3_000_000 + "[]]}",
            '{"log_history":[' + ",".join(f'{{"eval_accuracy":0.{i}}}' for i in range(90_000)) + "]}",
            '{"best_metric":' + "9" * 400 + ',"eval_loss":1e999,"vq_loss":[' + "1," * 1_000_000 + "1]}",
            "[" * 100_000,
            '{"' + "a" * 5_000_000 + '":1}',
            '{"log_history":[{"vq_loss":' + "9" * 400 + '},{"accuracy":' + "9" * 400 + "}]}",
        )
    )
    return {"model.pt": zip_of(b"\x80\x02}."), "trainer_state.json": state.encode()}
