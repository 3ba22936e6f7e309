"""The shipped samples: small, plain, and as a user would save them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from vqdoctor.reference import BUILTIN_TASKS
from vqdoctor.reference.recipes import RECIPES, SAMPLES

FOLDER = Path(__file__).parents[2] / "sample_checkpoints"
MIB = 2**20


@pytest.fixture(scope="module")
def data():
    with np.load(FOLDER / "digits.npz", allow_pickle=False) as file:
        return dict(file)


def load(name):
    return torch.load(FOLDER / f"{name}.pt", weights_only=True)


def measure(name, data):
    """Return val accuracy, perplexity and active codes over all splits, by torch alone."""
    checkpoint = load(name)
    model = BUILTIN_TASKS[checkpoint["vqdoctor_task"]](checkpoint["config"], data).model().eval()
    model.load_state_dict(checkpoint["model"])
    with torch.no_grad():
        output = model(torch.from_numpy(data["x"]))
    counts = torch.bincount(output["indices"].flatten(), minlength=model.num_codes).double()
    shares = counts / counts.sum()
    right = output["logits"].argmax(1).numpy() == data["y"]
    perplexity = math.exp(torch.special.entr(shares).sum())
    return right[data["split"] == 2].mean(), perplexity, int((shares * model.num_codes > 0.1).sum())


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_small_and_opens_safely(name):
    checkpoint = load(name)
    size = (FOLDER / f"{name}.pt").stat().st_size
    assert size < (1 if checkpoint["config"]["num_codes"] <= 512 else 3) * MIB
    assert checkpoint["config"] == RECIPES[name].config(seed=0)
    assert checkpoint["epoch"] == RECIPES[name].epochs
    assert checkpoint["optimizer"]["state"]


@pytest.mark.parametrize("name", ["healthy-256", "healthy-512"])
def test_healthy_samples_classify_and_use_their_codebook(name, data):
    accuracy, perplexity, active = measure(name, data)
    codes = RECIPES[name].num_codes
    assert accuracy >= 0.94
    assert perplexity >= 110
    assert active >= 0.6 * codes


@pytest.mark.parametrize("name", ["no-ste", "overweighted"])
def test_collapsed_samples_guess_from_one_code(name, data):
    accuracy, perplexity, active = measure(name, data)
    assert accuracy < 0.2
    assert perplexity < 2
    assert active == 1


def test_the_stalled_counts_say_more_than_the_data(data):
    assert measure("stalled-ema", data)[1] < 50
    shares = load("stalled-ema")["model"]["vq.ema_cluster_size"].double()
    shares /= shares.sum()
    assert math.exp(torch.special.entr(shares).sum()) > 100


def test_dead_codes_is_short_of_codes_and_of_nothing_else(data):
    accuracy, perplexity, active = measure("dead-codes", data)
    assert accuracy >= 0.94
    assert perplexity >= 0.05 * 1024
    assert active < 0.3 * 1024


def test_masked_classifies_like_the_healthy_sample_with_a_handful_of_codes(data):
    accuracy, perplexity, active = measure("masked", data)
    assert accuracy >= measure("healthy-256", data)[0] - 0.05
    assert perplexity < 20
    assert active < 20
