"""Outputs that are equal up to rounding get one number, over all calls; others get another."""

from __future__ import annotations

import numpy as np
import pytest

from vqdoctor.capture.numbering import Numbering


@pytest.mark.parametrize(("codes", "dim"), [(2, 1), (8, 3), (500, 16), (20_000, 48)])
def test_every_code_has_one_number_whatever_the_rounding(codes: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((codes, dim))
    numbering, seen = Numbering(), {}
    for scale in (1e-7, 3e-7, 1e-7):
        chosen = rng.integers(0, codes, 4_000)
        chosen[:2] = [0, codes - 1]
        noisy = (table[chosen] + scale * rng.standard_normal((len(chosen), dim))).astype(np.float32)
        for code, number in zip(chosen.tolist(), numbering.of(noisy).tolist(), strict=True):
            assert seen.setdefault(code, number) == number
    assert len(numbering) == len(seen) == len(set(seen.values()))


def test_numbers_come_in_the_order_of_the_outputs() -> None:
    numbering = Numbering()
    one, two, three = np.eye(3, dtype=np.float32)
    assert numbering.of(np.stack([two, one, two])).tolist() == [0, 1, 0]
    assert numbering.of(np.stack([three, one, two])).tolist() == [2, 1, 0]
    assert numbering.of(np.zeros((0, 3), np.float32)).tolist() == []
