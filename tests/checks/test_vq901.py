"""VQ901 non-finite-tensor just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import problems, says

from vqdoctor.core.evidence import Evidence, NonFinite


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([NonFinite.healthy(tensors=("a",), tensor_count=1, inf=1)], "error"),
        ([NonFinite.healthy()], "passes"),
        ([NonFinite.healthy(layer=None, tensors=("a",), tensor_count=1, nan=1)], "error"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ901", *evidence) == expected


def test_the_message_quotes_what_was_measured() -> None:
    (nan,) = problems("VQ901", NonFinite.healthy(tensors=("a", "b", "c", "d"), tensor_count=9, nan=12))
    assert nan.message == "a, b, c and 6 more hold 12 NaN values."


def test_one_value_is_one_value() -> None:
    (one,) = problems("VQ901", NonFinite.healthy(tensors=("a",), tensor_count=1, inf=1))
    assert one.message == "a holds 1 infinite value."
