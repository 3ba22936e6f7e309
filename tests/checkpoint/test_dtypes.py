"""All 256 values of every 8-bit float, and all 65,536 of bfloat16, against torch."""

import numpy as np
import pytest
import torch

from vqdoctor.checkpoint.dtypes import DTYPES


@pytest.mark.parametrize("name", [name for name in DTYPES if name.startswith("float8")])
def test_float8(name: str) -> None:
    raw = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(raw).view(getattr(torch, name)).float().numpy()
    np.testing.assert_array_equal(DTYPES[name].decode(raw), expected)


def test_bfloat16() -> None:
    raw = np.arange(65536, dtype=np.uint16)
    expected = torch.from_numpy(raw).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(DTYPES["bfloat16"].decode(raw), expected)


@pytest.mark.parametrize("name", DTYPES)
def test_sizes_and_names_are_torchs(name: str) -> None:
    assert DTYPES[name].itemsize == getattr(torch, name).itemsize
