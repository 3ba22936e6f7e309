"""What torch.save writes is read as torch.load reads it."""

import collections
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import record_offset, rezip
from releases import dtypes, torch_since
from torch._weights_only_unpickler import _get_allowed_globals

from vqdoctor.checkpoint import CheckpointError, Inert, LazyTensor, open_checkpoint
from vqdoctor.checkpoint.pickles.danger import could_execute
from vqdoctor.checkpoint.pickles.vocabulary import TorchVocabulary
from vqdoctor.checkpoint.tree import Global

DTYPES = [
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "uint16",
    "uint32", "uint64", "bool", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
    "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
]  # fmt: skip
WIDENED = ("bfloat16", "float8")


def saved(value: Any, folder: Path, **kwargs: Any) -> Path:
    path = folder / "saved.pt"
    torch.save(value, path, **kwargs)
    return path


def expected(tensor: torch.Tensor) -> Any:
    name = str(tensor.dtype).removeprefix("torch.")
    return (tensor.float() if name.startswith(WIDENED) else tensor).numpy()


def same(tensor: LazyTensor, original: torch.Tensor) -> None:
    values = tensor.read()
    assert tensor.shape == tuple(original.shape) == values.shape
    assert tensor.dtype == str(original.dtype).removeprefix("torch.")
    assert tensor.nbytes == original.numel() * original.element_size()
    assert values.dtype == expected(original).dtype
    assert not values.flags.writeable
    np.testing.assert_array_equal(values, expected(original))


@pytest.mark.parametrize("name", dtypes(DTYPES, saved=True))
def test_every_dtype(name: str, tmp_path: Path) -> None:
    raw = torch.randint(0, 2 if name == "bool" else 256, (6, 16), dtype=torch.uint8)
    original = raw.view(getattr(torch, name))
    checkpoint = open_checkpoint(saved({"t": original}, tmp_path))
    same(checkpoint.tensors["t"], original)
    whole = checkpoint.tensors["t"].sample(10**6)
    np.testing.assert_array_equal(whole, expected(original).ravel())


@pytest.mark.parametrize("name", dtypes((name for name in DTYPES if "8" not in name), saved=True))
def test_big_endian_files(name: str, tmp_path: Path) -> None:
    original = torch.arange(12).view(3, 4).to(getattr(torch, name))
    path = saved({"t": original}, tmp_path)
    size = original.element_size() // (2 if original.is_complex() else 1)
    raw = original.view(torch.uint8).numpy().reshape(-1, size)[:, ::-1].tobytes()
    rezip(path, {"byteorder": b"big", "data/0": raw})
    if name in ("uint16", "uint32", "uint64"):
        # torch saves these as untyped bytes and never swaps them, so it loads other values.
        with pytest.raises(CheckpointError, match="big-endian"):
            open_checkpoint(path)
    else:
        same(open_checkpoint(path).tensors["t"], original)


def test_views_of_one_storage(tmp_path: Path) -> None:
    base = torch.arange(120.0).view(10, 12)
    views = {
        "base": base,
        "transposed": base.T,
        "rows": base[3:5],
        "columns": base[:, 2:4],
        "stepped": base[::3, ::2],
        "permuted": base.view(2, 5, 12).permute(2, 0, 1),
        "one": base[4, 7],
        "expanded": base[0].expand(3, 12),
        "empty": base[:0],
        "single_row_view": base[9:10, 5:9],
    }
    tensors = open_checkpoint(saved(views, tmp_path)).tensors
    assert list(tensors) == list(views)
    for name, view in views.items():
        same(tensors[name], view)
    assert len({tensor.storage_id for tensor in tensors.values()}) == 1


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    values = {
        "scalar": torch.tensor(3.5),
        "flag": torch.tensor(True),
        "none": torch.empty(0),
        "no_rows": torch.empty(0, 7),
        "no_columns": torch.empty(5, 0, 2, dtype=torch.bfloat16),
    }
    tensors = open_checkpoint(saved(values, tmp_path)).tensors
    for name, value in values.items():
        same(tensors[name], value)
        assert tensors[name].sample(9).size == value.numel()


def test_parameters_are_told_from_tensors(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    tensors = open_checkpoint(saved({"p": parameter, "t": torch.ones(2)}, tmp_path)).tensors
    assert tensors["p"].is_parameter is True
    assert tensors["t"].is_parameter is None


def test_a_lightning_like_file(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Linear(4, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    model[1](torch.ones(1, 4)).sum().backward()
    optimizer.step()
    content = {
        "epoch": 12,
        "global_step": 3400,
        "state_dict": model.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "dirpath": None}},
        "hyper_parameters": {"lr": 3e-4, "dims": (1, 2), "names": {"a"}, "counts": collections.Counter("ab")},
        "loops": collections.defaultdict(list, x=[1]),
        "size": torch.Size([2, 3]),
        "device": torch.device("cuda", 1),
        "dtype": torch.bfloat16,
    }
    checkpoint = open_checkpoint(saved(content, tmp_path))
    tree = checkpoint.tree
    assert tree["epoch"] == 12 and tree["global_step"] == 3400
    assert tree["hyper_parameters"] == {
        "lr": 3e-4,
        "dims": (1, 2),
        "names": ["a"],
        "counts": {"a": 1, "b": 1},
    }
    assert tree["loops"] == {"x": [1]}
    assert (tree["size"], tree["device"], tree["dtype"]) == ((2, 3), "cuda:1", "torch.bfloat16")
    group = tree["optimizer_states"][0]["param_groups"][0]
    assert group["lr"] == 3e-4 and group["params"] == [0, 1, 2, 3]
    assert list(checkpoint.tensors)[:4] == [f"state_dict.{key}" for key in model.state_dict()]
    same(
        checkpoint.tensors["optimizer_states.0.state.2.exp_avg"], optimizer.state[model[1].weight]["exp_avg"]
    )
    assert (checkpoint.harmless, checkpoint.dangerous, checkpoint.notes) == ((), (), ())
    assert checkpoint.container == "torch-zip" and checkpoint.bytes == checkpoint.path.stat().st_size


def test_tensors_in_the_tree_are_those_of_the_map(tmp_path: Path) -> None:
    shared = torch.ones(2)
    checkpoint = open_checkpoint(saved({"a": {"b": shared}, "c": shared, "a.b": torch.zeros(1)}, tmp_path))
    assert list(checkpoint.tensors) == ["a.b", "c", "a.b~2"]
    assert [tensor.key for tensor in checkpoint.tensors.values()] == ["a.b", "c", "a.b~2"]
    assert checkpoint.tree["a"]["b"] is checkpoint.tensors["a.b"]
    assert checkpoint.tensors["a.b"].storage_id == checkpoint.tensors["c"].storage_id
    assert checkpoint.tensors["a.b~2"].shape == (1,)


def test_a_shared_sub_dict_has_both_names(tmp_path: Path) -> None:
    state = {"w": torch.ones(2)}
    tensors = open_checkpoint(saved({"model": state, "best": state}, tmp_path)).tensors
    assert list(tensors) == ["model.w", "best.w"]


def test_numpy_arrays_in_the_pickle(tmp_path: Path) -> None:
    arrays = {
        "c": np.arange(6, dtype=np.int32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(4, dtype=">f4"),
        "scalar": np.array(5.5),
        "none": np.empty((0, 3)),
        "bools": np.array([True, False]),
    }
    others = {"objects": np.array([{}], dtype=object), "words": np.array(["a", "b"]), "i": np.int64(7)}
    checkpoint = open_checkpoint(saved({**arrays, **others}, tmp_path))
    for name, array in arrays.items():
        np.testing.assert_array_equal(checkpoint.tensors[name].read(), array)
    assert checkpoint.tree["i"] == 7 and type(checkpoint.tree["i"]) is int
    assert isinstance(checkpoint.tree["objects"], Inert) and isinstance(checkpoint.tree["words"], Inert)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_that_are_not_read_are_noted(tmp_path: Path) -> None:
    odd = {
        "sparse": torch.eye(2).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.5, 0, torch.qint8),
        "meta": torch.empty(3, device="meta"),
        "half_complex": torch.zeros(3, dtype=torch.complex32),
        "good": torch.ones(1),
    }
    checkpoint = open_checkpoint(saved(odd, tmp_path))
    assert "good" in checkpoint.tensors and not {"quantized", "meta", "half_complex"} & set(
        checkpoint.tensors
    )
    notes = " ".join(checkpoint.notes)
    assert all(word in notes for word in ("sparse", "quantized", "meta", "complex32"))


def test_a_state_dict_with_metadata_is_plain(tmp_path: Path) -> None:
    state = torch.nn.Linear(2, 2).state_dict()
    assert state._metadata
    checkpoint = open_checkpoint(saved(state, tmp_path))
    assert type(checkpoint.tree) is dict and list(checkpoint.tree) == ["weight", "bias"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol(protocol: int, tmp_path: Path) -> None:
    content = {"w": torch.ones(2), "n": np.float32(1.5), "bytes": b"x", "set": frozenset({1}), "big": 2**70}
    checkpoint = open_checkpoint(saved(content, tmp_path, pickle_protocol=protocol))
    same(checkpoint.tensors["w"], torch.ones(2))
    assert checkpoint.tree["n"] == 1.5 and checkpoint.tree["big"] == 2**70 and checkpoint.tree["set"] == [1]
    assert isinstance(checkpoint.tree["bytes"], Inert)


class EasyDict(dict[str, Any]):
    """A dict that is an object too, as many config libraries make them."""


def test_subclasses_of_dict_keep_their_items(tmp_path: Path) -> None:
    config = EasyDict(lr=0.1)
    config.frozen = True  # type: ignore[attr-defined]
    (name,) = open_checkpoint(saved({"config": config}, tmp_path)).harmless
    node = open_checkpoint(saved({"config": config}, tmp_path)).tree["config"]
    assert isinstance(node, Inert) and node.state == {"lr": 0.1, "frozen": True}
    assert name.endswith(".EasyDict")


def test_zip64(tmp_path: Path) -> None:
    """Rewritten with zip64 fields everywhere, as files over 4 GiB have them."""
    path = saved({"w": torch.arange(5.0)}, tmp_path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    body, directory = bytearray(), bytearray()
    for name, data in records.items():
        raw, crc, at = name.encode(), zipfile.crc32(data), len(body)  # type: ignore[attr-defined]
        body += struct.pack(
            "<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 0, crc, len(data), len(data), len(raw), 0
        )
        body += raw + data
        extra = struct.pack("<2H3Q", 1, 24, len(data), len(data), at)
        full = 0xFFFFFFFF
        directory += struct.pack(
            "<4s6H3I5H2I",
            b"PK\x01\x02",
            45,
            45,
            0,
            0,
            0,
            0,
            crc,
            full,
            full,
            len(raw),
            len(extra),
            0,
            0,
            0,
            0,
            full,
        )
        directory += raw + extra
    n, start, size = len(records), len(body), len(directory)
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, n, n, size, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(body + directory + end64 + locator + end)
    assert zipfile.ZipFile(path).testzip() is None  # the oracle agrees that the file is sound
    same(open_checkpoint(path).tensors["w"], torch.arange(5.0))
    open_checkpoint(path).verify()


@torch_since("2.6", "set_crc32_options")
def test_files_without_checksums(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        path = saved({"w": torch.arange(50.0)}, tmp_path)
    finally:
        torch.serialization.set_crc32_options(before)
    same(open_checkpoint(path).tensors["w"], torch.arange(50.0))
    with zipfile.ZipFile(path) as archive:
        recorded = {info.filename: info.CRC for info in archive.infolist()}
    if any(name.endswith("data/0") and crc == 0 for name, crc in recorded.items()):
        raw = bytearray(path.read_bytes())
        raw[record_offset(path, "data/0")] ^= 1
        path.write_bytes(raw)
        assert open_checkpoint(path).tensors["w"].read()[0] != 0


def test_a_big_tensor_is_mapped_and_still_checked(tmp_path: Path) -> None:
    original = torch.arange(3_000_000, dtype=torch.float32)
    path = saved({"w": original}, tmp_path)
    same(open_checkpoint(path).tensors["w"], original)
    raw = bytearray(path.read_bytes())
    raw[record_offset(path, "data/0") + 11_000_000] ^= 4
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match="checksum"):
        open_checkpoint(path).tensors["w"].read()


def test_a_file_that_is_cut_after_opening(tmp_path: Path) -> None:
    path = saved({"small": torch.ones(9), "big": torch.ones(3_000_000)}, tmp_path)
    tensors = open_checkpoint(path).tensors
    with path.open("r+b") as file:
        file.truncate(100)
    for tensor in tensors.values():
        for access in (tensor.read, lambda t=tensor: t.sample(10)):  # type: ignore[misc]
            with pytest.raises(CheckpointError, match="cut"):
                access()


def test_names_that_torch_itself_trusts_are_not_foreign() -> None:
    vocabulary = TorchVocabulary(path=Path("x"), find_record=lambda key: pytest.fail(key))
    for name in _get_allowed_globals():
        module, _, attribute = name.rpartition(".")
        vocabulary.named(module, attribute)
    assert (vocabulary.harmless, vocabulary.dangerous) == ((), ())


@pytest.mark.parametrize(
    "name",
    [
        "os.system", "posix.system", "nt.system", "subprocess.Popen", "builtins.eval", "builtins.getattr",
        "__builtin__.eval", "builtins.__import__", "runpy.run_path", "importlib.import_module",
        "torch.hub.load", "torch.load", "torch.jit.load", "webbrowser.open", "operator.attrgetter",
        "types.FunctionType", "types.CodeType", "pickle.loads", "torch.storage._load_from_bytes",
        "torch.fx.graph_module.reduce_graph_module", "shutil.rmtree", "socket.create_connection",
        "urllib.request.urlopen", "ctypes.CDLL", "builtins.print.__self__.eval",
    ],
)  # fmt: skip
def test_dangerous_names(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert could_execute(Global(module, attribute))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("collections", "abc.sys.modules"), ("torch.nn.modules.linear", "Linear.__init__.__globals__"),
        ("pathlib", "Path.unlink"),
    ],
)  # fmt: skip
def test_names_that_walk_attributes(module: str, name: str) -> None:
    assert could_execute(Global(module, name))


@pytest.mark.parametrize(
    "name",
    [
        "argparse.Namespace", "torch.nn.modules.linear.Linear", "pathlib.PosixPath", "types.SimpleNamespace",
        "numpy.dtype", "omegaconf.dictconfig.DictConfig", "functools.partial", "datetime.datetime",
        "torch.optim.adam.Adam", "operator.itemgetter", "osmodel.Net", "__main__.Config", "codecs.encode",
    ],
)  # fmt: skip
def test_harmless_names(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert not could_execute(Global(module, attribute))
