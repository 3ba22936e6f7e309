"""The sound twins of the first model's two layers: the same training, and not a word about their EMA."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vqdoctor.engine.examine import examine
from vqdoctor.reference.recipes import RECIPES
from vqdoctor.reference.task import DIGITS, MOTION
from vqdoctor.reference.train import train

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data_set"),
    [
        ("unnormalised-ema-sound", DIGITS),
        pytest.param("sphere-codes-sound", DIGITS, marks=pytest.mark.accept),
        pytest.param("unnormalised-ema-sound", MOTION, marks=pytest.mark.accept),
    ],
)
def test_a_sound_twin_is_healthy(tmp_path, name, data_set):
    with np.load(SAMPLES / data_set.file) as data:
        trained = train(replace(RECIPES[name], epochs=12), dict(data), 0, data_set=data_set)
    torch.save(trained.checkpoint, tmp_path / "twin.pt")
    report = examine(tmp_path / "twin.pt")
    assert report.verdict == "healthy", report.findings
    assert trained.history[-2]["revived"] < 25  # codes that are placed at another scale are never chosen
