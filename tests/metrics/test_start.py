"""Rows as a constructor drew them, told from trained, faded and revived ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import nn

from vqdoctor.metrics.start import as_constructed, is_drawn

K, D = 256, 16


def trained(rows: int, rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
    """Codes in a few directions, as k-means on real z_e finds them."""
    mixed = rng.normal(size=(rows, 4)) @ rng.normal(size=(4, D))
    return (scale * mixed).astype(np.float32)


STARTS = {
    f"U(±1/{K})": lambda: torch.empty(K, D).uniform_(-1 / K, 1 / K),
    "Kaiming's uniform": lambda: nn.init.kaiming_uniform_(torch.empty(1, K, D))[0],
    "N(0, 1)": lambda: nn.Embedding(K, D).weight.detach(),
    "U(0, 1)": lambda: torch.rand(K, D),
    "Xavier's uniform": lambda: nn.init.xavier_uniform_(torch.empty(K, D)),
}


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("left", [64, 200, K])
def test_what_torch_draws_is_recognised_among_trained_rows(name: str, left: int) -> None:
    torch.manual_seed(0)
    codebook = STARTS[name]().numpy().copy()
    codebook[left:] = trained(K - left, np.random.default_rng(0))
    unused = np.arange(K) < left
    rows, start = as_constructed(codebook, unused)
    assert start == name and abs(int(rows.sum()) - left) <= 1
    bare, _ = as_constructed(codebook)
    narrow = name in (f"U(±1/{K})", "Kaiming's uniform")
    assert int(bare.sum()) == (int(rows.sum()) if narrow else 0)  # a wide start needs a sign of use


@given(seed=st.integers(0, 2**32 - 1), log_scale=st.floats(-4, 3))
@settings(max_examples=60)
def test_trained_rows_of_any_scale_are_no_start(seed: int, log_scale: float) -> None:
    rng = np.random.default_rng(seed)
    codebook = trained(K, rng, 10**log_scale)
    unused = rng.random(K) < 0.7
    assert not as_constructed(codebook, unused)[0].any()


def test_correlated_rows_with_a_normal_margin_are_no_start() -> None:
    """Codes revived onto outputs of a batch norm: every number is N(0, 1), and the dimensions go together."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(K, 1))
    codebook = (math.sqrt(0.5) * (shared + rng.normal(size=(K, D)))).astype(np.float32)
    assert kstest(codebook[:, 0], "norm").pvalue > 0.01
    assert not as_constructed(codebook, np.ones(K, dtype=bool))[0].any()


def test_zeros_and_a_handful_of_numbers_are_no_start() -> None:
    assert not as_constructed(np.zeros((K, D), dtype=np.float32))[0].any()
    few = np.random.default_rng(0).uniform(-1 / 8, 1 / 8, (8, D)).astype(np.float32)
    assert not as_constructed(few)[0].any()


def test_a_true_start_is_hardly_ever_missed() -> None:
    rng = np.random.default_rng(0)
    draws = [rng.uniform(-1 / K, 1 / K, (K, D)).astype(np.float32) for _ in range(300)]
    missed = sum(not as_constructed(codebook)[0].all() for codebook in draws)
    assert missed <= 3  # one in 1,000 is expected


@pytest.mark.parametrize("layer", ["linear", "convolution", "attention", "embedding"])
def test_weights_are_told_as_drawn_until_an_optimizer_moves_them(layer: str) -> None:
    torch.manual_seed(0)
    made = {
        "linear": lambda: nn.Linear(24, 40).weight,
        "convolution": lambda: nn.Conv1d(16, 24, 4).weight,
        "attention": lambda: nn.MultiheadAttention(16, 2).in_proj_weight,
        "embedding": lambda: nn.Embedding(64, 16).weight,
    }
    for _ in range(20):
        weight = made[layer]()
        flat, shape = weight.detach().flatten().double(), tuple(weight.shape)
        assert is_drawn(flat.numpy(), shape) == (layer != "embedding")
        moved = flat + 0.2 * flat.std() * torch.randn_like(flat)
        assert not is_drawn(moved.numpy(), shape)
        assert not is_drawn(0.6 * flat.numpy(), shape)
