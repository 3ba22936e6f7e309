"""A checkpoint is written again with some tensors changed, and everything else as it was."""

from __future__ import annotations

import argparse
import collections
import os
import resource
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hostile_files import record_offset, rezip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import python
from releases import torch_since

from vqdoctor.checkpoint import CheckpointError, open_checkpoint, write_checkpoint, zip_writing

FLOATS = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"]


def saved(value: Any, folder: Path, **kwargs: Any) -> Path:
    path = folder / "saved.pt"
    torch.save(value, path, **kwargs)
    return path


def fixed(path: Path, changes: Mapping[str, Any], **kwargs: Any) -> Path:
    out = path.with_name("fixed" + path.suffix)
    arrays = {key: np.asarray(values) for key, values in changes.items()}
    write_checkpoint(open_checkpoint(path), out, arrays, note={"what": "a test"}, **kwargs)
    return out


def records(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None  # every checksum
        return {name: archive.read(name) for name in archive.namelist()}


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone(memory_format=torch.contiguous_format).view(-1, 1).view(torch.uint8)


def content() -> dict[str, Any]:
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 4)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 6)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(beta=0.25, path="here"),
        "losses": collections.Counter("ab"),
        "epoch": 3,
    }


def test_only_the_changed_record_differs(tmp_path: Path) -> None:
    path = saved(content(), tmp_path)
    new = torch.arange(24.0).view(4, 6)
    out = fixed(path, {"model.weight": new})
    before, after = records(path), records(out)
    assert list(after) == [*before, "saved/vqdoctor.json"]
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["saved/data/0"]
    assert after["saved/data/0"] == new.numpy().tobytes()
    offsets = [{i.filename: i.header_offset for i in zipfile.ZipFile(p).infolist()} for p in (path, out)]
    assert {name: offsets[1][name] for name in before} == offsets[0]


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_load_reads_it_as_the_input(mmap: bool, tmp_path: Path) -> None:
    value = content()
    path = saved(value, tmp_path)
    loaded = torch.load(fixed(path, {"model.bias": torch.full((4,), 7.0)}), weights_only=False, mmap=mmap)
    assert loaded["args"] == value["args"] and loaded["losses"] == value["losses"] and loaded["epoch"] == 3
    assert torch.equal(loaded["model"]["bias"], torch.full((4,), 7.0))
    assert torch.equal(loaded["model"]["weight"], value["model"]["weight"])
    torch.nn.Linear(6, 4).load_state_dict(loaded["model"], strict=True)


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_load_with_weights_only(mmap: bool, tmp_path: Path) -> None:
    out = fixed(saved({"w": torch.zeros(3)}, tmp_path), {"w": [1.0, 2.0, 3.0]})
    assert torch.load(out, weights_only=True, mmap=mmap)["w"].tolist() == [1.0, 2.0, 3.0]


def test_a_second_fix_adds_to_the_history(tmp_path: Path) -> None:
    path = saved({"w": torch.zeros(3)}, tmp_path)
    checkpoint = open_checkpoint(path)
    sha256 = write_checkpoint(checkpoint, tmp_path / "1.pt", {"w": np.ones(3)}, note={"n": 1})
    write_checkpoint(open_checkpoint(tmp_path / "1.pt"), tmp_path / "2.pt", {"w": np.ones(3)}, note={"n": 2})
    first, second = open_checkpoint(tmp_path / "2.pt").history
    assert first == {"input_sha256": sha256, "n": 1} and second["n"] == 2
    assert list(records(tmp_path / "2.pt")).count("saved/vqdoctor.json") == 1
    assert (tmp_path / "2.pt").stat().st_size < (tmp_path / "1.pt").stat().st_size + 200


def test_a_history_of_somebody_elses_making_is_none(tmp_path: Path) -> None:
    path = fixed(saved({"w": torch.zeros(3)}, tmp_path), {})
    rezip(path, {"vqdoctor.json": b"[" * 100_000})
    assert open_checkpoint(path).history == ()


def test_a_file_of_python_zipfile_whose_note_is_not_last(tmp_path: Path) -> None:
    path = fixed(saved({"w": torch.zeros(3)}, tmp_path), {})
    rezip(path, {})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("saved/zzz", b"more")
        archive.comment = b"a comment"
    out = tmp_path / "again.pt"
    write_checkpoint(open_checkpoint(path), out, {"w": np.ones(3, np.float32)}, note={})
    assert records(out)["saved/zzz"] == b"more"
    assert zipfile.ZipFile(out).comment == b"a comment"
    assert len(open_checkpoint(out).history) == 2
    assert torch.load(out, weights_only=True)["w"].tolist() == [1.0] * 3


@torch_since("2.6", "reading a file under 4 GiB with numbers in zip64 fields")
def test_numbers_that_need_zip64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a file of more than 4 GiB, with the bar lowered."""
    path = saved({"w": torch.zeros(3)}, tmp_path)
    monkeypatch.setattr(zip_writing, "_WIDE_FROM", 1)
    out = fixed(path, {"w": [1.0, 2.0, 3.0]})
    tail = out.read_bytes()[-22:]
    assert tail[8:20] == b"\xff" * 12
    assert torch.load(out, weights_only=True)["w"].tolist() == [1.0, 2.0, 3.0]
    assert "saved/vqdoctor.json" in records(out) and open_checkpoint(out).history


@torch_since("2.6", "set_crc32_options")
def test_checksums_that_were_not_recorded_stay_so(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved({"w": torch.zeros(3)}, tmp_path)
    finally:
        torch.serialization.set_crc32_options(True)
    out = fixed(path, {"w": [1.0, 2.0, 3.0]})
    assert torch.load(out, weights_only=True)["w"].tolist() == [1.0, 2.0, 3.0]
    with zipfile.ZipFile(path) as a, zipfile.ZipFile(out) as b:
        assert [i.CRC for i in a.infolist()] == [i.CRC for i in b.infolist()][:-1]


def test_views_of_one_storage(tmp_path: Path) -> None:
    base = torch.arange(120.0).view(10, 12)
    views = {"base": base, "columns": base[:, 2:4], "transposed": base.T, "stepped": base[::3, ::2]}
    path = saved(views, tmp_path)
    base[::3, ::2] = -1.0
    loaded = torch.load(fixed(path, {"stepped": base[::3, ::2]}), weights_only=True)
    assert all(torch.equal(loaded[name], view) for name, view in views.items())
    base[:, 2:4] = 5.0
    both = {"columns": base[:, 2:4], "transposed": base.T}
    loaded = torch.load(fixed(path, both, overwrite=True), weights_only=True)
    assert torch.equal(loaded["base"], base)


def test_two_names_of_one_memory_cannot_hold_two_values(tmp_path: Path) -> None:
    shared = torch.zeros(4)
    path = saved({"a": shared, "b": shared}, tmp_path)
    assert (
        torch.load(fixed(path, {"a": np.ones(4), "b": np.ones(4)}), weights_only=True)["b"].tolist()
        == [1.0] * 4
    )
    with pytest.raises(CheckpointError, match="different values"):
        fixed(path, {"a": np.ones(4), "b": np.zeros(4)}, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fixed.pt", "saved.pt"]


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16", "int64", "int16"])
def test_big_endian_files(name: str, tmp_path: Path) -> None:
    original = torch.arange(12).view(3, 4).to(getattr(torch, name))
    path = saved({"t": original}, tmp_path)
    size = original.element_size()
    raw = original.view(torch.uint8).numpy().reshape(-1, size)[:, ::-1].tobytes()
    rezip(path, {"byteorder": b"big", "data/0": raw})
    out = fixed(path, {"t": original.float().numpy() * 3})
    want = (original.float() * 3).to(original.dtype)
    assert records(out)["archive/data/0" if "archive/data/0" in records(out) else "saved/data/0"] == (
        want.view(torch.uint8).numpy().reshape(-1, size)[:, ::-1].tobytes()
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_written_is_what_torch_would_have_stored(data: st.DataObject, tmp_path: Path) -> None:
    dtype = getattr(torch, data.draw(st.sampled_from(FLOATS)))
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    order = data.draw(st.permutations(range(len(shape))))
    step = data.draw(st.integers(1, 3))
    seed = data.draw(st.integers(0, 2**16))
    scale = data.draw(st.sampled_from([1e-3, 1.0, 20.0]))
    generator = torch.Generator().manual_seed(seed)
    storage = torch.randn([step * n for n in shape], generator=generator).to(dtype)
    view = storage[tuple(slice(None, None, step) for _ in shape)].permute(*order)
    path = saved({"other": torch.ones(2), "view": view, "whole": storage}, tmp_path)
    new = torch.randn(view.shape, generator=generator) * scale
    keep = torch.rand(view.shape, generator=generator) < data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    new = torch.where(keep, view.float(), new)
    out = fixed(path, {"view": new.numpy()}, overwrite=True)
    loaded = torch.load(out, weights_only=True)
    view.copy_(new.to(dtype))
    for key, want in (("view", view), ("whole", storage)):
        assert loaded[key].stride() == want.stride()
        assert bits(loaded[key]).equal(bits(want))


@pytest.mark.parametrize("name", ["float16", "float8_e4m3fn", "int8"])
def test_a_value_that_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    path = saved({"t": torch.ones(3).to(getattr(torch, name))}, tmp_path)
    with pytest.raises(CheckpointError, match=f"does not fit into {name}"):
        fixed(path, {"t": np.array([1.0, 1e6, 2.0], np.float32)})
    assert [p.name for p in tmp_path.iterdir()] == ["saved.pt"]


def test_a_flag_of_either_type(tmp_path: Path) -> None:
    path = saved({"bool": torch.tensor(False), "float": torch.zeros(1)}, tmp_path)
    loaded = torch.load(fixed(path, {"bool": np.array(1.0), "float": np.array([1.0])}), weights_only=True)
    assert loaded["bool"].item() is True and loaded["float"].tolist() == [1.0]


def test_a_changed_shape_and_an_unknown_key_are_mistakes_of_the_caller(tmp_path: Path) -> None:
    path = saved({"t": torch.ones(3)}, tmp_path)
    with pytest.raises(ValueError, match="its new values are"):
        fixed(path, {"t": np.ones((3, 1))})
    with pytest.raises(KeyError):
        fixed(path, {"u": np.ones(3)})


def test_values_that_stand_still_leave_their_bytes_alone(tmp_path: Path) -> None:
    """A NaN with a message in it, and minus zero, are no new values."""
    odd = torch.tensor([0x7FC12345, -0x80000000, 0x3F800000], dtype=torch.int32).view(torch.float32)
    path = saved({"t": odd}, tmp_path)
    out = fixed(path, {"t": np.array([np.nan, 0.0, 2.0], np.float32)})
    assert torch.load(out, weights_only=True)["t"].view(torch.int32).tolist() == [
        0x7FC12345,
        -0x80000000,
        0x40000000,
    ]


class TestSafetensors:
    def saved(self, folder: Path, metadata: dict[str, str] | None = None) -> Path:
        path = folder / "model.safetensors"
        tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(3, dtype=torch.bfloat16)}
        safetensors.torch.save_file(tensors, path, metadata=metadata)
        return path

    def test_its_own_library_reads_it(self, tmp_path: Path) -> None:
        path = self.saved(tmp_path, {"format": "pt", "who": "ünï"})
        out = fixed(path, {"b": np.full((2, 3), 9.0)})
        with safetensors.safe_open(out, "pt") as file:
            metadata = file.metadata()
            assert torch.equal(file.get_tensor("b"), torch.full((2, 3), 9.0))
            assert torch.equal(file.get_tensor("a"), torch.ones(3, dtype=torch.bfloat16))
            assert file.keys() == safetensors.safe_open(path, "pt").keys()
        assert metadata["format"] == "pt" and metadata["who"] == "ünï"
        (note,) = open_checkpoint(out).history
        assert note["what"] == "a test" and len(note["input_sha256"]) == 64

    def test_data_stays_aligned_and_the_same(self, tmp_path: Path) -> None:
        path = self.saved(tmp_path)
        out = fixed(path, {})
        raw = [p.read_bytes() for p in (path, out)]
        lengths = [8 + int.from_bytes(r[:8], "little") for r in raw]
        assert lengths[1] % 8 == 0 and raw[0][lengths[0] :] == raw[1][lengths[1] :]

    def test_metadata_that_did_not_exist_names_the_format(self, tmp_path: Path) -> None:
        out = fixed(self.saved(tmp_path), {})
        assert safetensors.safe_open(out, "pt").metadata()["format"] == "pt"


class TestRefusals:
    def path(self, folder: Path) -> Path:
        return saved({"w": torch.arange(4096.0)}, folder)

    def write(self, path: Path, out: Path, **kwargs: Any) -> None:
        write_checkpoint(open_checkpoint(path), out, {"w": np.zeros(4096)}, note={}, **kwargs)

    def refused(self, path: Path, out: Path, match: str, **kwargs: Any) -> None:
        before = {p: (p.read_bytes() if p.is_file() else None) for p in path.parent.rglob("*")}
        with pytest.raises(CheckpointError, match=match):
            self.write(path, out, **kwargs)
        assert before == {p: (p.read_bytes() if p.is_file() else None) for p in path.parent.rglob("*")}

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_the_input_under_any_name(self, overwrite: bool, tmp_path: Path) -> None:
        path = self.path(tmp_path)
        (tmp_path / "link.pt").symlink_to(path)
        (tmp_path / "hard.pt").hardlink_to(path)
        (tmp_path / "folder").symlink_to(tmp_path)
        for out in ("saved.pt", "link.pt", "hard.pt", "folder/saved.pt", "folder/./saved.pt"):
            self.refused(path, tmp_path / out, "this is the input", overwrite=overwrite)
        self.refused(tmp_path / "link.pt", path, "this is the input", overwrite=overwrite)

    def test_an_existing_output(self, tmp_path: Path) -> None:
        path = self.path(tmp_path)
        (tmp_path / "out.pt").write_bytes(b"precious")
        self.refused(path, tmp_path / "out.pt", "exists already")
        self.write(path, tmp_path / "out.pt", overwrite=True)
        assert torch.load(tmp_path / "out.pt", weights_only=True)["w"].sum() == 0

    def test_a_link_to_another_file_survives(self, tmp_path: Path) -> None:
        path = self.path(tmp_path)
        (tmp_path / "link.pt").symlink_to("real.pt")
        self.write(path, tmp_path / "link.pt")
        assert (tmp_path / "link.pt").is_symlink()
        assert torch.load(tmp_path / "real.pt", weights_only=True)["w"].sum() == 0

    def test_a_folder_that_is_missing_or_a_folder_itself(self, tmp_path: Path) -> None:
        path = self.path(tmp_path)
        (tmp_path / "folder").mkdir()
        self.refused(path, tmp_path / "nowhere" / "out.pt", "there is no folder")
        self.refused(path, tmp_path / "folder", "not a regular file", overwrite=True)

    def test_a_damaged_input_is_not_copied(self, tmp_path: Path) -> None:
        path = self.path(tmp_path)
        raw = bytearray(path.read_bytes())
        raw[record_offset(path, "data/0") + 5000] ^= 1
        path.write_bytes(raw)
        self.refused(path, tmp_path / "out.pt", "do not match their checksum")

    def test_compressed_records_and_arrays_in_the_pickle(self, tmp_path: Path) -> None:
        path = self.path(tmp_path)
        rezip(path, {}, zipfile.ZIP_DEFLATED)
        self.refused(path, tmp_path / "out.pt", "cannot be written in place")
        path = saved({"w": np.arange(4096.0)}, tmp_path)
        self.refused(path, tmp_path / "out.pt", "cannot be written in place")

    def test_a_full_disk(self, tmp_path: Path) -> None:
        path = self.path(tmp_path)
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, old[1]))  # Python ignores the signal: a write fails
        try:
            self.refused(path, tmp_path / "out.pt", r"out.pt: cannot be written \(File too large\)")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)

    def test_a_folder_that_nobody_may_write_to(self, tmp_path: Path) -> None:
        path = self.path(tmp_path)
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o555)
        code = (
            "import os, sys; import numpy as np; from vqdoctor.checkpoint import *\n"
            "os.getuid() or (os.setgid(65534), os.setuid(65534))\n"  # root may write anywhere
            f"os.chdir({str(tmp_path)!r})\n"
            "try: write_checkpoint(open_checkpoint('saved.pt'), 'closed/out.pt', {}, note={})\n"
            "except CheckpointError as error: sys.exit(str(error))"
        )
        for place in (tmp_path, *tmp_path.parents[:3]):
            if place.owner() == path.owner():
                place.chmod(stat.S_IMODE(place.stat().st_mode) | 0o055)
        folder.chmod(0o555)
        done = python("-c", code)
        assert "closed/out.pt: nothing can be written in the folder " in done.stderr
        assert not list(folder.iterdir())

    def test_the_new_file_has_the_usual_permissions(self, tmp_path: Path) -> None:
        mask = os.umask(0o022)
        try:
            self.write(self.path(tmp_path), tmp_path / "out.pt")
        finally:
            os.umask(mask)
        assert stat.S_IMODE((tmp_path / "out.pt").stat().st_mode) == 0o644


@pytest.mark.parametrize("how", ["written to", "replaced"])
def test_an_input_that_changes_while_it_is_fixed_is_noticed(how: str, tmp_path: Path) -> None:
    path = saved({"w": torch.arange(9.0)}, tmp_path)
    checkpoint, told = open_checkpoint(path), []

    def meddle(read: int, size: int) -> None:
        if not told:
            told.append(read)
            if how == "replaced":
                (tmp_path / "newer.pt").write_bytes(path.read_bytes())
                (tmp_path / "newer.pt").replace(path)
            else:
                with path.open("ab") as file:
                    file.write(b"x")

    with pytest.raises(CheckpointError, match="changed while it was being fixed"):
        write_checkpoint(
            checkpoint, tmp_path / "out.pt", {"w": np.ones(9, np.float32)}, note={}, progress=meddle
        )
    assert not (tmp_path / "out.pt").exists()
