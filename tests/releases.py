"""What a test needs of a newer release than the oldest that is supported, by name."""

from __future__ import annotations

import pytest
import torch


def torch_since(release: str, what: str) -> pytest.MarkDecorator:
    """Skip where torch is older than the first release that has what is named."""
    return pytest.mark.skipif(torch.__version__ < release, reason=f"{what} came with torch {release}")
