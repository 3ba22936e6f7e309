"""Nothing is allocated or computed as long as a number in the file: an attack is refused, or costs little."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from cost import costs_at_most
from forged_pickles import HOOKS, call, named, number, numbers, text
from hostile_files import codebook_state, safetensors, torch_zip

from vqdoctor.checkpoint import CheckpointError, open_checkpoint
from vqdoctor.checkpoint.budget import Budget
from vqdoctor.checkpoint.files import Damaged
from vqdoctor.checkpoint.pickles.machine import unpickle
from vqdoctor.checkpoint.pickles.vocabulary import TorchVocabulary
from vqdoctor.metrics.expectation import expected_active
from vqdoctor.metrics.geometry import COPY, copies, spread

CPU = 2.0
"""Seconds that a hostile file may take."""
MEMORY = 300 << 20
"""Bytes beyond the file's own size that it may take."""

_PID = b"(" + text("storage") + named("torch.FloatStorage") + text("0") + text("cpu") + number(1024) + b"tQ"
_MATRIX = call(
    "torch._utils._rebuild_tensor_v2", _PID, number(0), numbers((64, 16)), numbers((16, 1)), b"\x89", HOOKS
)
_ENTRY = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'

PICKLES = {
    "lists": b"(" + b"]" * 2_000_000 + b"l",
    "dicts": b"(" + b"}" * 2_000_000 + b"l",
    "marks": b"(" * 2_000_000,
    "names": b"(" + b"cos\nsystem\n" * 500_000 + b"l",
    "objects": b"(" + b"ca\nb\n)R" * 500_000 + b"l",
    "numbers": b"(" + b"J\1\2\3\4" * 2_000_000 + b"l",
    "tensors": b"](" + _MATRIX * 30_000 + b"e",
    "a shared list": b"](]q\0(" + b"K\1" * 1000 + b"e" + b"h\0" * 2_000_000 + b"e",
    "long names": b"".join(b"}" + text("k" * 1000) for _ in range(150))
    + b"](" + b"]" * 90_000 + b"e" + b"s" * 150,
}  # fmt: skip


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_has_one_budget(name: str, tmp_path: Path) -> None:
    torch_zip(tmp_path / "odd.pt", b"\x80\x02" + PICKLES[name] + b".", {"0": bytes(4096)})

    def refused() -> None:
        with pytest.raises(CheckpointError, match=r"steps|absurdly long"):
            open_checkpoint(tmp_path / "odd.pt")

    costs_at_most(2 * CPU, refused)


def test_a_large_file_may_have_a_large_pickle() -> None:
    data = b"\x80\x02](" + b"K\1" * 1_300_000 + b"e."
    vocabulary = TorchVocabulary(path=Path("x"), find_record=lambda key: pytest.fail(key))
    with pytest.raises(Damaged, match="steps"):
        unpickle(data, vocabulary, Budget(90 << 20))
    assert len(unpickle(data, vocabulary, Budget(200 << 20))) == 1_300_000


@pytest.mark.parametrize(
    ("says", "header"),
    [
        ("15,000 dimensions", b'{"a":{"dtype":"F32","shape":[' + b",".join([b"4611686018427387904"] * 15_000)
         + b'],"data_offsets":[0,8]}}'),
        ("200,000 dimensions", b'{"a":{"dtype":"F32","shape":[' + b",".join([b"1"] * 200_000)
         + b'],"data_offsets":[0,8]}}'),
        ("names more tensors", b"{" + b",".join(b'"%d":%s' % (i, _ENTRY) for i in range(100_000)) + b"}"),
        ("absurdly long", b'{"a":[' + b"[]," * 3_000_000 + b"1]}"),
    ],
    ids=["dimensions", "ones", "tensors", "nested"],
)  # fmt: skip
def test_a_safetensors_header_has_one_too(says: str, header: bytes, tmp_path: Path) -> None:
    safetensors(tmp_path / "odd.safetensors", header, bytes(8))

    def refused() -> None:
        with pytest.raises(CheckpointError, match=says):
            open_checkpoint(tmp_path / "odd.safetensors")

    costs_at_most(CPU, refused)


def test_a_crowd_of_records_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "odd.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        for i in range(21_000):
            archive.writestr(f"archive/data/{i}", b"")
    with pytest.raises(CheckpointError, match="lists 21,001 records"):
        open_checkpoint(tmp_path / "odd.pt")


def test_a_few_bytes_are_not_shown_as_many_tensors(tmp_path: Path) -> None:
    many = {f"q{i}.vq.embedding": torch.zeros(1).expand(2**20, 4) for i in range(50)}
    torch.save(many, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match="show 800 MiB"):
        open_checkpoint(tmp_path / "odd.pt")
    shared = torch.randn(1000, 64)
    torch.save({"model": {"a": shared}, "ema": {"a": shared}, "view": shared[5:]}, tmp_path / "honest.pt")
    assert len(open_checkpoint(tmp_path / "honest.pt").tensors) == 3


@pytest.mark.parametrize("vectors", [10**9, 10**12, 10**40])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.999, 1.0, 1.2])
def test_no_sum_is_as_long_as_a_count(vectors: int, share: float) -> None:
    assert 0 <= expected_active(64, vectors, share) <= 64
    costs_at_most(0.5, lambda: expected_active(64, vectors, share))


def test_the_approximations_agree_with_the_binomial() -> None:
    from scipy.stats import binom

    cases = (64, 64 * 59, 0.1), (64, 64 * 61, 0.1), (64, 10**9, 0.999), (8, 10**9, 1.0)
    for codes, vectors, share in cases:
        exact = codes * binom.sf(np.floor(share * vectors / codes), vectors, 1 / codes)
        assert expected_active(codes, vectors, share) == pytest.approx(exact, rel=1e-3)


def test_rows_that_were_made_to_look_alike_are_not_compared_for_ever() -> None:
    rng = np.random.default_rng(0)
    rows = (1e6 + rng.standard_normal((30_000, 64))).astype(np.float32)
    costs_at_most(2 * CPU, lambda: copies(rows, COPY * spread(rows)))


def _measured(path: Path) -> tuple[int, float, int, str]:
    """Return exit code, CPU seconds and peak memory of an inspection, and its first line."""
    code = (
        "import resource, sys\n"
        "command = [sys.executable, '-m', 'vqdoctor', 'inspect', sys.argv[1]]\n"
        "import processes; done = processes.run(*command, encoding=None)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)\n"
        "print((done.stdout + done.stderr).decode().splitlines()[0])\n"
    )
    done = processes.python("-c", code, path, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    first, line = done.stdout.splitlines()
    returned, cpu, memory = first.split()
    return int(returned), float(cpu), int(memory), line


def _counts(path: Path) -> None:
    state = codebook_state()
    state["vq.ema_cluster_size"][:] = 1e9
    torch.save(state, path)


def _layers(path: Path) -> None:
    where = number(0), numbers((64, 16)), numbers((16, 1)), b"\x89", b"N"
    one = call("torch._utils._rebuild_tensor_v2", b"h\2", *where)
    items = b"".join(text(f"m{i}.vq.embedding.weight") + one for i in range(4000))
    torch_zip(path, b"\x80\x02" + _PID + b"q\2" + b"0}(" + items + b"u.", {"0": bytes(4096)})


def _wide(path: Path) -> None:
    torch.save({"vq.embedding": torch.randn(4, 2_000_000)}, path)


def _square(path: Path) -> None:
    torch.save({"vq.embedding": torch.randn(4000, 3000)}, path)


def _long(path: Path) -> None:
    torch.save({"vq.embedding": torch.randn(500_000, 2)}, path)


def _half(path: Path) -> None:
    torch.save({"vq.embedding": torch.randn(100_000, 4).bfloat16()}, path)


def _heads(path: Path) -> None:
    torch.save({"vq._codebook.embed": torch.zeros(200_000, 4, 2)}, path)


def _deep(path: Path) -> None:
    torch.save({f"vq.layers.{i}._codebook.embed": torch.randn(1, 16, 8) for i in range(400)}, path)


@pytest.mark.parametrize("build", [_counts, _layers, _wide, _square, _long, _half, _heads, _deep])
def test_an_inspection_as_a_whole_stays_small(build: object, tmp_path: Path) -> None:
    build(tmp_path / "odd.pt")  # type: ignore[operator]
    returned, cpu, memory, line = _measured(tmp_path / "odd.pt")
    assert returned in (0, 1, 2, 3) and "bug" not in line
    assert memory < MEMORY + (tmp_path / "odd.pt").stat().st_size
    assert cpu < 2 * CPU
