"""Words and numbers as all formats write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqdoctor.render._text import against, count, layers_in_short, listing, number, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1"), (28_752, "28,752"), (0.00390625, "0.003906"), (51.2, "51.2"),
        (12_345.6, "12,346"), (1e-7, "1e-07"), (-2.5, "-2.5"), (1e30, "1e+30"),
    ],
)  # fmt: skip
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_small_words() -> None:
    assert (count(1, "code"), count(2, "code"), count(0, "code")) == ("1 code", "2 codes", "0 codes")
    assert count(3, "batch", "batches") == "3 batches"
    assert against(0.300004, 0.3) == ("0.300004", "0.3")
    assert against(0.3, 0.3) == ("0.3", "0.3")
    assert (size(1), size(361_376), size(3 << 30)) == ("1 byte", "352.9 KiB", "3.0 GiB")
    assert listing(list("abc"), at_most=2) == "a, b and 1 more"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["vq"], "vq"),
        (["rvq.layers.0", "rvq.layers.1", "rvq.layers.2"], "rvq.layers.0–2"),
        (["a.3.codebook", "a.1.codebook", "a.2.codebook"], "a.1–3.codebook"),
        (["a.0", "a.2", "b.1.c.0", "b.1.c.1"], "a.0, a.2, b.1.c.0–1"),
        (["vq1", "vq2", "", "a.01"], "vq1, vq2, , a.01"),
        (["0", "1"], "0–1"),
        ([f"vq.{9**30}"], f"vq.{9**30}"),
    ],
)
def test_levels_of_a_stack_are_a_range(names: list[str], text: str) -> None:
    assert layers_in_short(names) == text


@given(st.text())
def test_one_layer_keeps_its_name(name: str) -> None:
    assert layers_in_short([name]) == name
