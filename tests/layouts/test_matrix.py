"""The matrix of families in docs/layouts.md: every one is found and oriented, and live where it installs."""

from __future__ import annotations

import pytest
import torch
from layout_families import FAMILIES, INSTALLED, tensors
from live_models import AutoEncoder
from stored import Stored
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import Usage
from vqdoctor.layouts import find_quantizers


def test_there_are_many_families() -> None:
    assert len(FAMILIES) == len(set(FAMILIES)) >= 40


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_found_with_its_codes_as_rows(name: str) -> None:
    state = tensors(name)
    views = find_quantizers({key: Stored(value) for key, value in state.items()}).views
    assert views
    for view in views:
        assert view.codebook.shape == (view.num_codes, view.dim) and view.num_codes >= view.dim
        assert set(view.keys.values()) <= state.keys()


def losses(model: nn.Module, batch: torch.Tensor) -> vqdoctor.Losses:
    reconstruction, *rest = model(batch)
    parts = [t.sum() for t in rest if isinstance(t, torch.Tensor) and t.requires_grad and t.numel() < 9]
    vq = sum(parts, torch.zeros(())) if parts else None
    return vqdoctor.Losses(task=functional.mse_loss(reconstruction, batch), vq=vq)


@pytest.mark.accept
@pytest.mark.parametrize("name", INSTALLED)
def test_a_library_that_installs_is_seen_live(name: str) -> None:
    torch.manual_seed(0)
    model = AutoEncoder(INSTALLED[name]())
    report = vqdoctor.examine(model, torch.randn(64, 10, 3), losses=losses)
    assert report.layers
    assert all(
        (usage := report.find(Usage, layer.name)) and usage.source == "batch" for layer in report.layers
    )
