"""The sequences, and one small chain that is trained on a few of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vqdoctor.reference.chain.sequences import stitch
from vqdoctor.reference.chain.task import CHAIN, SEQUENCES
from vqdoctor.reference.train import train

MOTION = Path(__file__).parents[3] / "sample_checkpoints" / "motion.npz"


@pytest.fixture(scope="session")
def windows():
    with np.load(MOTION) as file:
        return dict(file)


@pytest.fixture(scope="session")
def sequences(windows):
    return stitch(windows, step=4)


@pytest.fixture(scope="session")
def few(sequences):
    return {name: np.concatenate([array[:48], array[-16:]]) for name, array in sequences.items()}


@pytest.fixture(scope="session")
def small_chain(few):
    recipe = replace(CHAIN, epochs=4, warm_up_epochs=1, batch_size=8)
    return train(recipe, few, 0, data_set=SEQUENCES)
