"""A part of `make fuzz`, and the proof that it finds a hole: each planted one makes it fail."""

from __future__ import annotations

import fuzz
import pytest
from bombs import BOMBS

from vqdoctor.checkpoint.containers import safetensors
from vqdoctor.checkpoint.pickles import tensors, vocabulary

SEED = 12
PART = 600
"""Inputs that run here; `make fuzz` runs 20,000."""


def test_nothing_hurts() -> None:
    # Here a hang is what counts: a busy machine doubles the CPU time that `make fuzz` holds to two seconds.
    result = fuzz.run(SEED, range(PART), fuzz.Bounds(cpu=10.0), whole=150)
    assert result.failures == []
    assert len(result.kinds) == 8 and min(result.kinds.values()) > 5


def numbers_of(most: int) -> range:
    """Return a range of inputs that holds `most` of each kind at the least."""
    return range(most * len(fuzz.MAKERS))


class _Prefixes(frozenset[str]):
    """An allow list that takes whatever begins like one of its names."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(name.startswith(allowed) for allowed in self)


def test_an_allowed_eval_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "PLAIN", frozenset({*vocabulary.PLAIN, "builtins.eval"}))
    found = fuzz.run(SEED, numbers_of(25), whole=10**6).failures
    assert any("builtins.eval" in failure for failure in found)


def test_an_allowed_prefix_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "PLAIN", _Prefixes(vocabulary.PLAIN))
    found = fuzz.run(SEED, numbers_of(25), whole=10**6).failures
    assert any("not told" in failure for failure in found)


def test_a_missing_cap_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "MAX_DIMENSIONS", 10**9)
    bombs = range(fuzz.RARE - 1, 100_000, fuzz.RARE)
    shapes = (n for n in bombs if list(BOMBS)[n // fuzz.RARE % len(BOMBS)] == "shape")
    long = next(n for n in shapes if b'"shape":[1,1,1,1,1,1' in fuzz.made(SEED, n)[1]["a.safetensors"][:200])
    found = fuzz.run(SEED, [long], fuzz.Bounds(cpu=1.0)).failures
    assert any("of CPU" in failure for failure in found)


def test_a_skipped_state_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "_refuse_state", lambda state: None)
    found = fuzz.run(SEED, numbers_of(150), whole=10**6, kinds=("a_forgery",)).failures
    assert any("torch reads other tensors" in failure for failure in found)
