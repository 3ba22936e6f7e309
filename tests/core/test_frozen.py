"""Frozen values behave as the dataclasses that they replace."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import ClassVar

import pytest

from vqdoctor.core.frozen import frozen


@frozen
class Base:
    x: int
    kind: ClassVar[str] = "a point"
    y: tuple[int, ...] = ()


@frozen
class Point(Base):
    z: dict[str, int] = field(default_factory=dict, compare=False)
    seen: list[int] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.seen.append(self.x)


@dataclass(frozen=True, kw_only=True)
class Peer:
    x: int
    y: tuple[int, ...] = ()


def test_fields_defaults_and_replace() -> None:
    point = Point(x=1)
    assert [f.name for f in fields(point)] == ["x", "y", "z", "seen"]
    assert (point.y, point.z, point.seen) == ((), {}, [1])
    assert Point(x=2).z is not point.z
    assert replace(point, x=3) == Point(x=3)
    assert repr(Base(x=1, y=(2,))) == repr(Peer(x=1, y=(2,))).replace("Peer", "Base")


def test_equal_and_hashed_by_its_compared_fields() -> None:
    assert Point(x=1, z={"a": 1}) == Point(x=1)
    assert Point(x=1) != Point(x=2)
    assert Base(x=1) != Point(x=1)
    assert hash(Base(x=1)) == hash(Base(x=1))
    assert len({Base(x=1), Base(x=1), Base(x=2)}) == 2


@pytest.mark.parametrize("given", [{}, {"x": 1, "w": 2}])
def test_a_wrong_argument_is_named(given: dict[str, int]) -> None:
    with pytest.raises(TypeError, match=r"'[xw]'"):
        Base(**given)
    with pytest.raises(TypeError):
        Base(1)  # type: ignore[misc]


def test_it_stays_as_it_is_and_can_be_sent() -> None:
    point = Point(x=1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del point.x
    assert pickle.loads(pickle.dumps(point)) == point
