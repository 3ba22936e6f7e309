"""Every hostile file gives one clear error, or is read with nothing run, and quickly."""

import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cost import costs_at_most
from hostile_files import (
    HOSTILE_FILES,
    billion_laughs,
    canary,
    codebook_state,
    healthy,
    rezip,
    torch_zip,
)

from vqdoctor.checkpoint import CheckpointError, Inert, open_checkpoint

REFUSED = [name for name, file in HOSTILE_FILES.items() if file.exit_code == 2]
READ = [name for name, file in HOSTILE_FILES.items() if file.exit_code != 2]

_audited: list[tuple[str, Any]] = []
_auditing = False
_RUNS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "exec",
    "compile",
    "import",
    "pickle.find_class",
)


def _audit(event: str, args: Any) -> None:
    if _auditing and event in _RUNS:
        _audited.append((event, args))


@pytest.fixture(scope="session", autouse=True)
def _hook() -> None:
    sys.addaudithook(_audit)  # it can never be removed again, so it is switched


@pytest.fixture
def audited() -> Any:
    """What the interpreter was asked to run or import since the fixture was entered."""
    global _auditing
    _audited.clear()
    _auditing = True
    yield _audited
    _auditing = False


def build(name: str, folder: Path) -> Path:
    file = HOSTILE_FILES[name]
    path = folder / f"odd{file.suffix}"
    file.build(path)
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_clear_line(name: str, tmp_path: Path) -> None:
    path = build(name, tmp_path)

    def opened() -> None:
        checkpoint = open_checkpoint(path)
        assert HOSTILE_FILES[name].on_read
        checkpoint.tensors["model.vq.embedding"].read()

    with pytest.raises(CheckpointError) as caught:
        opened()

    def refused() -> None:
        with pytest.raises(CheckpointError):
            opened()

    costs_at_most(1, refused)
    message = str(caught.value)
    assert HOSTILE_FILES[name].says in message.lower()
    assert message.isprintable()
    assert "weights_only=False" not in message
    assert caught.value.path == str(path)


@pytest.mark.parametrize("name", READ)
def test_read_without_running_anything(name: str, tmp_path: Path, audited: list[Any]) -> None:
    path = build(name, tmp_path)
    healthy(tmp_path / "warm.pt")
    open_checkpoint(tmp_path / "warm.pt").fingerprint([])  # our own lazy imports happen here
    audited.clear()

    def read_whole() -> None:
        checkpoint = open_checkpoint(path)
        for tensor in checkpoint.tensors.values():
            tensor.read()
        checkpoint.fingerprint(checkpoint.tensors.values())

    costs_at_most(1.5, read_whole)
    assert audited == []
    assert not canary(path).exists()


def test_the_canary_sings_in_an_ordinary_unpickler(tmp_path: Path, audited: list[Any]) -> None:
    path = build("os-system", tmp_path)
    torch.load(path, weights_only=False)
    assert canary(path).exists()
    assert any(event == "os.system" for event, _ in audited)


def test_what_could_execute_is_named(tmp_path: Path) -> None:
    path = build("os-system", tmp_path)
    checkpoint = open_checkpoint(path)
    assert checkpoint.dangerous == (f"{os.system.__module__}.system",)
    assert checkpoint.harmless == ()
    evil = checkpoint.tree["evil"]
    assert isinstance(evil, Inert) and evil.args == (f"touch '{canary(path)}'",)
    np.testing.assert_array_equal(
        checkpoint.tensors["model.vq.embedding"].read(), codebook_state()["vq.embedding"].numpy()
    )


def test_a_pickled_module_has_the_keys_of_its_state_dict(tmp_path: Path) -> None:
    path = build("pickled-module", tmp_path)
    checkpoint = open_checkpoint(path)
    loaded = torch.load(path, weights_only=False)
    state = loaded.state_dict()
    assert set(checkpoint.tensors) == {*state, "code_sum"}
    for key, value in state.items():
        np.testing.assert_array_equal(checkpoint.tensors[key].read(), value.numpy())
    assert checkpoint.tensors["decoder.weight"].is_parameter is True
    assert checkpoint.tensors["vq.embedding"].is_parameter is None
    assert checkpoint.dangerous == ()
    assert "torch.nn.modules.linear.Linear" in checkpoint.harmless


def test_foreign_values_become_plain(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(build("foreign-values", tmp_path))
    tree = checkpoint.tree
    assert tree["best"] == 0.97 and type(tree["best"]) is float
    assert tree["root"] == "/data/digits"
    assert tree["args"].state == {"lr": 1e-3, "vq_weight": 0.1}
    assert checkpoint.dangerous == ()
    assert {"argparse.Namespace", "numpy.dtype", "pathlib.PurePosixPath"} <= set(checkpoint.harmless)


def test_nan_is_read_as_nan(tmp_path: Path) -> None:
    values = open_checkpoint(build("nan", tmp_path)).tensors["model.vq.embedding"].read()
    assert np.isnan(values[3, 5]) and np.isnan(values).sum() == 1


@pytest.mark.parametrize("name", ["deep", "deep-tuples", "billion-laughs"])
def test_the_tree_is_safe_for_plain_recursion(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(build(name, tmp_path))

    def count(node: Any) -> int:
        return 1 + sum(map(count, node)) if isinstance(node, list | tuple) else 1

    assert count(checkpoint.tree) < 1_000_000
    assert any(HOSTILE_FILES[name].says in note for note in checkpoint.notes)


def test_a_cycle_is_cut(tmp_path: Path) -> None:
    cyclic: dict[str, Any] = {"weight": torch.ones(2)}
    cyclic["self"] = cyclic
    torch.save(cyclic, tmp_path / "cyclic.pt")
    checkpoint = open_checkpoint(tmp_path / "cyclic.pt")
    assert list(checkpoint.tensors) == ["weight"]
    assert checkpoint.tree["self"] is None


@pytest.mark.parametrize(
    ("name", "pickle_bytes", "says"),
    [
        ("memo bomb", b"\x80\x02]r\xff\xff\xff\xff.", None),
        ("huge text", b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "ends too early"),
        ("huge long", b"\x80\x02\x8b\xff\xff\xff\x7f.", "ends too early"),
        ("unknown opcode", b"\x80\x02\xff.", "unknown opcode"),
        ("no stop", b"\x80\x02]", "ends too early"),
        ("nothing to stop with", b"\x80\x02.", "takes what is not there"),
        ("unknown memo", b"\x80\x02h\x07.", "never stored"),
        ("newer protocol", b"\x80\x06N.", "protocol 6"),
        ("out-of-band buffer", b"\x80\x05\x97.", "buffers"),
        ("append to None", b"\x80\x02N]a.", "other than a list"),
        ("odd setitems", b"\x80\x02}(Nu.", "other than a dict"),
        ("too many steps", b"\x80\x02" + b"N0" * 2_600_000 + b"N.", "steps"),
        # 40 doublings of a tuple as a dict's key: hashing it would take 2^40 steps.
        ("exponential hash", b"\x80\x02}" + b")" + b"2\x86" * 40 + b"Ns.", None),
        ("build on a global", b"\x80\x02cos\nsystem\n}X\x01\x00\x00\x00aNsb.", "after it was made"),
        ("wrong arguments", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nK\x01\x85R.", "do not fit"),
        ("extension code", b"\x80\x02\x82\x05.", None),
    ],
)
def test_abuses_of_the_pickle(name: str, pickle_bytes: bytes, says: str | None, tmp_path: Path) -> None:
    path = tmp_path / "abuse.pt"
    torch_zip(path, pickle_bytes)

    def met() -> None:
        if says is None:
            open_checkpoint(path)
        else:
            with pytest.raises(CheckpointError, match=says):
                open_checkpoint(path)

    costs_at_most(5, met)


def test_laughs_cost_what_they_say() -> None:
    assert len(billion_laughs()) < 1000


def _patch(path: Path, at: int, new: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[at : at + len(new)] = new
    path.write_bytes(raw)


def _central(path: Path, short: str) -> int:
    """Return where the directory's entry of a record begins."""
    raw = path.read_bytes()
    at = raw.index(b"PK\x01\x02")
    while True:
        length = int.from_bytes(raw[at + 28 : at + 30], "little")
        if raw[at + 46 : at + 46 + length].endswith(short.encode()):
            return at
        at = raw.index(b"PK\x01\x02", at + 4)


def test_abuses_of_the_zip_directory(tmp_path: Path) -> None:
    path = tmp_path / "zip.pt"

    healthy(path)
    _patch(path, _central(path, "data/0") + 42, b"\x00\x00\x00\x00")  # header offset: onto data.pkl
    with pytest.raises(CheckpointError, match="runs into another"):
        open_checkpoint(path)

    healthy(path)
    _patch(path, _central(path, "data/0") + 20, b"\xf0\xff\xff\x7f" * 2)  # sizes of 2 GiB
    with pytest.raises(CheckpointError, match="runs into another"):
        open_checkpoint(path)

    torch_zip(path, b"\x80\x02}.")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
    with pytest.raises(CheckpointError, match="same name"):
        open_checkpoint(path)


def test_a_lie_in_a_local_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lie.pt"
    healthy(path)
    with zipfile.ZipFile(path) as archive:
        (info,) = (i for i in archive.infolist() if i.filename.endswith("data/0"))
    for at, lie in ((0, b"PK\x03\x05"), (28, b"\xff\xff"), (30, b"z")):  # signature, extra length, name
        healthy(path)
        _patch(path, info.header_offset + at, lie)
        with pytest.raises(CheckpointError, match="not where the directory says"):
            open_checkpoint(path)


def test_an_honest_deflated_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deflated.pt"
    healthy(path)
    rezip(path, {}, compression=8)
    checkpoint = open_checkpoint(path)
    expected = codebook_state()["vq.embedding"].numpy()
    np.testing.assert_array_equal(checkpoint.tensors["model.vq.embedding"].read(), expected)
    np.testing.assert_array_equal(
        np.sort(checkpoint.tensors["model.vq.embedding"].sample(10**6)), np.sort(expected.ravel())
    )
    checkpoint.verify()


def test_a_small_expanded_tensor_is_no_bomb(tmp_path: Path) -> None:
    torch.save({"mask": torch.tensor([2.0]).expand(512, 4)}, tmp_path / "expanded.pt")
    mask = open_checkpoint(tmp_path / "expanded.pt").tensors["mask"]
    np.testing.assert_array_equal(mask.read(), np.full((512, 4), 2.0))
    assert mask.sample(100).tolist() == [2.0]
