"""The pickle machine agrees with `pickle` on plain values, in every protocol."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqdoctor.checkpoint.pickles.machine import unpickle
from vqdoctor.checkpoint.pickles.vocabulary import TorchVocabulary
from vqdoctor.checkpoint.settling import settle
from vqdoctor.checkpoint.tree import Global, Inert, children, walk

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.integers(-(2**600), 2**600)
)  # fmt: skip
KEYS = st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.none() | st.floats(allow_nan=False)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner, inner) | st.tuples(inner),
    max_leaves=40,
)


def vocabulary() -> TorchVocabulary:
    return TorchVocabulary(path=Path("x"), find_record=lambda key: pytest.fail(key))


def read(data: bytes) -> Any:
    return settle(unpickle(data, vocabulary()))[0]


@settings(max_examples=80)
@given(value=TREES, protocol=st.integers(0, 5))
def test_plain_values_as_pickle_reads_them(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert read(data) == pickle.loads(data) == value


@given(values=st.lists(st.integers(0, 3)), protocol=st.integers(0, 5))
def test_sharing_is_kept(values: list[int], protocol: int) -> None:
    shared = ["x"]
    data = pickle.dumps([shared, *values, shared], protocol)
    result = read(data)
    assert result[0] is result[-1]


@pytest.mark.parametrize("protocol", range(6))
def test_sets_bytes_and_complex_are_left_inert_or_listed(protocol: int) -> None:
    result = read(pickle.dumps([{1}, frozenset({2}), b"ab", 1j, bytearray(b"c")], protocol))
    assert result[:2] == [[1], [2]]
    assert all(isinstance(node, Inert) for node in result[2:])


def test_lone_surrogates_do_not_reach_the_tree() -> None:
    (text,) = read(pickle.dumps(["a\ud800b"], 4))
    text.encode()


def test_a_global_cannot_be_polluted() -> None:
    machine_words = vocabulary()
    first = machine_words.named("collections", "OrderedDict")
    assert first == Global("collections", "OrderedDict") is not first
    with pytest.raises(AttributeError):
        first.name = "other"  # type: ignore[misc]
    assert not callable(first)


def test_foreign_calls_stay_inert_with_all_that_was_passed() -> None:
    # INST, OBJ, NEWOBJ_EX, and a BUILD with slots
    inst = read(b"(K\x01icounter\nMake\n.")
    assert (inst.module, inst.name, inst.args) == ("counter", "Make", (1,))
    obj = read(b"(ccounter\nMake\nK\x02o.")
    assert obj.args == (2,)
    built = read(b"\x80\x02ccounter\nMake\n)\x81N}X\x01\x00\x00\x00aK\x05s\x86b.")
    assert built.state == {"a": 5}
    extended = read(b"\x80\x04\x82\x07)R.")
    assert (extended.module, extended.name) == ("copyreg", "extension 7")


def test_walk_yields_every_leaf_by_path() -> None:
    module = Inert("m", "Net", (), {"_parameters": {"w": 1}, "_modules": {"sub": {"b": 2}}, "extra": 3})
    tree = {"model": module, "list": [4, (5,)], 0: None}
    assert dict(walk(tree)) == {
        "model.w": 1, "model.sub.b": 2, "model.extra": 3, "list.0": 4, "list.1.0": 5, "0": None,
    }  # fmt: skip
    assert [segment for segment, _ in children(module)] == ["w", "sub", "extra"]


@pytest.mark.parametrize("key", [(1, 2), frozenset({1}), b"bytes", 2**70, "x" * 5000])
def test_odd_keys_become_short_words(key: Any) -> None:
    (found,) = read(pickle.dumps({key: 1}, 4))
    assert found.startswith("<") and len(found) < 30


def test_a_crowd_of_names_does_not_hide_the_dangerous_one() -> None:
    crowd = vocabulary()
    for i in range(5000):
        crowd.named("crowd", f"Class{i}")
    crowd.named("os", "system")
    assert len(crowd.harmless) == 1000 and crowd.dangerous == ("os.system",)
