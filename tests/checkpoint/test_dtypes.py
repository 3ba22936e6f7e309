"""All 256 values of every 8-bit float, and all 65,536 of bfloat16, against torch."""

import numpy as np
import pytest
import torch
from releases import dtypes

from vqdoctor.checkpoint.dtypes import DTYPES


@pytest.mark.parametrize("name", dtypes(name for name in DTYPES if name.startswith("float8")))
def test_float8(name: str) -> None:
    raw = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(raw).view(getattr(torch, name)).float().numpy()
    np.testing.assert_array_equal(DTYPES[name].decode(raw), expected)


def test_bfloat16() -> None:
    raw = np.arange(65536, dtype=np.uint16)
    expected = torch.from_numpy(raw).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(DTYPES["bfloat16"].decode(raw), expected)


@pytest.mark.parametrize("name", dtypes(DTYPES))
def test_sizes_and_names_are_torchs(name: str) -> None:
    assert DTYPES[name].itemsize == getattr(torch, name).itemsize


def _hard_values(name: str) -> np.ndarray:
    """Values of every size, and those on and beside the middle between two neighbours of the type."""
    dtype = DTYPES[name]
    rng = np.random.default_rng(0)
    steps = np.arange(2 ** (8 * dtype.itemsize), dtype=dtype.stored)
    values = np.unique(dtype.decode(steps[: len(steps) // 2]).astype(np.float32))
    values = values[np.isfinite(values)]
    middle = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    beside = [np.nextafter(middle, np.float32(edge)) for edge in (-np.inf, np.inf)]
    random = rng.standard_normal(4096) * 10.0 ** rng.uniform(-9, 2, 4096)
    found = np.concatenate([values, middle, *beside, random]).astype(np.float32)
    found = found[np.abs(found) <= values.max()]
    return np.concatenate([found, -found])


@pytest.mark.parametrize(
    "name", [n for n in DTYPES if n.startswith("float8") and "e8m0" not in n] + ["bfloat16"]
)
def test_values_are_rounded_as_torch_rounds(name: str) -> None:
    values = _hard_values(name)
    expected = torch.from_numpy(values).to(getattr(torch, name)).view(torch.uint8).numpy()
    np.testing.assert_array_equal(DTYPES[name].encode(values).view(np.uint8), expected)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"])
def test_what_is_too_large_is_refused_and_what_is_broken_stays_broken(name: str) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        DTYPES[name].encode(np.array([1.0, 3.4e38]))
    assert not np.isfinite(DTYPES[name].rounded(np.array([np.nan, np.inf, -np.inf]))).any()
