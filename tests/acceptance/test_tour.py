"""The tour of docs/tour.md is what its six commands print today."""

from __future__ import annotations

import pytest
from tour import COMMANDS, tour, written

pytestmark = pytest.mark.accept


def test_the_tour_is_fresh() -> None:
    assert len(COMMANDS) == 6
    assert tour() == written()
