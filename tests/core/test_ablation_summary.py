"""What the recipe expects of a cured codebook, and on which side of it a cell lies."""

from __future__ import annotations

import pytest

from vqdoctor.core.ablation_summary import Mean, missed

WITHOUT = {"accuracy": Mean(value=0.95, spread=None, count=1)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ()),
        ({"perplexity": 49.0}, ("perplexity under",)),
        ({"perplexity": 216.0, "active": 256.0}, ("perplexity over", "usage over")),
        ({"active": 100.0}, ("usage under",)),
        ({"accuracy": 0.93}, ("accuracy",)),
        ({"ece": 0.05}, ("ECE",)),
    ],
)
def test_the_side_is_told(changes: dict[str, float], expected: tuple[str, ...]) -> None:
    values = {
        "perplexity": 120.0,
        "active": 150.0,
        "num_codes": 256.0,
        "accuracy": 0.94,
        "ece": 0.03,
        **changes,
    }
    cell = {name: Mean(value=value, spread=None, count=1) for name, value in values.items()}
    assert missed(cell, WITHOUT) == expected
