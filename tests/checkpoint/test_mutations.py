"""Whatever is done to a file's bytes: a checkpoint, or one CheckpointError, and quickly."""

import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from cost import costs_at_most
from hostile_files import Calls, codebook_state
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from vqdoctor.checkpoint import CheckpointError, open_checkpoint
from vqdoctor.checkpoint.files import Damaged, guarded
from vqdoctor.checkpoint.pickles.machine import unpickle
from vqdoctor.checkpoint.pickles.vocabulary import TorchVocabulary
from vqdoctor.checkpoint.records import MemoryRecord
from vqdoctor.checkpoint.settling import settle
from vqdoctor.checkpoint.tree import flatten

quick = settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])


@cache
def original(suffix: str) -> bytes:
    state = codebook_state(num_codes=4, dim=3)
    if suffix == ".safetensors":
        return save(state, metadata={"format": "pt"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pt"
        numbers = torch.nn.Parameter(torch.ones(2)), state["vq.embedding"].numpy(), Calls(print, "x")
        torch.save({"model": state, "args": (1.5, {"lr": 3}, numbers)}, path)
        return path.read_bytes()


def survives(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mutant{suffix}"
        path.write_bytes(data)
        costs_at_most(2, lambda: meets_clean_errors(path))


def meets_clean_errors(path: Path) -> None:
    try:
        checkpoint = open_checkpoint(path)
        for tensor in checkpoint.tensors.values():
            tensor.sample(100)
            tensor.read()
        checkpoint.fingerprint(checkpoint.tensors.values())
        checkpoint.verify()
    except CheckpointError as error:
        assert str(error).isprintable() and error.kind


SUFFIXES = pytest.mark.parametrize("suffix", [".pt", ".safetensors"])


@SUFFIXES
@quick
@given(data=st.data())
def test_changed_bytes(suffix: str, data: st.DataObject) -> None:
    raw = bytearray(original(suffix))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(raw), suffix)


@SUFFIXES
@quick
@given(data=st.data())
def test_cut_and_doubled_pieces(suffix: str, data: st.DataObject) -> None:
    raw = original(suffix)
    a, b = sorted(data.draw(st.tuples(*(st.integers(0, len(raw)),) * 2)))
    how = data.draw(st.sampled_from(("keep", "drop", "double")))
    survives({"keep": raw[a:b], "drop": raw[:a] + raw[b:], "double": raw[:b] + raw[a:]}[how], suffix)


def pickle_of_original() -> bytes:
    raw = original(".pt")
    start = raw.index(b"\x80\x02")
    return raw[start : raw.index(b"PK\x07\x08", start)]


@settings(max_examples=600)
@given(data=st.data())
def test_a_mutated_pickle_meets_no_fault_of_ours(data: st.DataObject) -> None:
    """Without the checksum that catches most of it: never an AttributeError or the like."""
    raw = bytearray(pickle_of_original())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    vocabulary = TorchVocabulary(path=Path("x"), find_record=lambda key: MemoryRecord(bytes(48)))
    try:
        with guarded("x"):
            tree, _ = settle(unpickle(bytes(raw), vocabulary))
            for tensor in flatten(tree).values():
                tensor.read()
    except CheckpointError as error:
        assert not isinstance(error.__cause__, AttributeError | TypeError | AssertionError | RecursionError)


def test_the_pickle_for_the_mutations_is_sound() -> None:
    vocabulary = TorchVocabulary(path=Path("x"), find_record=lambda key: MemoryRecord(bytes(48)))
    tree, notes = settle(unpickle(pickle_of_original(), vocabulary))
    assert (
        len(flatten(tree)) == 5
        and notes == ()
        and "print" in vocabulary.harmless[-1] + vocabulary.harmless[0]
    )
    with pytest.raises(Damaged):
        unpickle(pickle_of_original()[:-3], vocabulary)
