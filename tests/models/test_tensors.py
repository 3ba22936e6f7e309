"""The values of a user's tensors, as numpy has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vqdoctor.models.tensors import to_numpy


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_no_value_is_rounded(dtype: torch.dtype) -> None:
    """A retrained file in float64 came back with the values of float32."""
    values = (torch.arange(6, dtype=torch.float64) / 7 * 10).to(dtype).requires_grad_(dtype.is_floating_point)
    own = to_numpy(values)
    assert (torch.from_numpy(own.astype(np.float64)) == values.double()).all()
    assert own.dtype == np.dtype("float64") or dtype is not torch.float64
