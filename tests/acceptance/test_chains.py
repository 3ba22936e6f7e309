"""Really trained chains, sound and sick: what is said of their codes and of their sequence stage.

The limits of VQ608 were set on the chains of seed 0 with negative binomial durations; the others report them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vqdoctor.core.evidence import CodeSequences, SequenceStage, StepLabels
from vqdoctor.engine import examine
from vqdoctor.reference.chain.task import CHAIN, SEQUENCES, ChainRecipe
from vqdoctor.reference.train import train

pytestmark = pytest.mark.accept
MOTION = Path(__file__).parents[2] / "sample_checkpoints" / "motion.npz"
SOUND = {
    "sound": (CHAIN, 0),
    "another seed": (CHAIN, 1),
    "without HDP": (replace(CHAIN, use_hdp=False), 0),
    "without HSMM": (replace(CHAIN, use_hsmm=False), 0),
    "two clusters": (replace(CHAIN, clusters=2), 0),
    "Poisson durations": (replace(CHAIN, durations="poisson"), 0),
    "Gaussian, by input": (replace(CHAIN, durations="gaussian", input_transitions=True), 0),
    "sharp assignments": (replace(CHAIN, temperature=0.3), 0),
    "temperature 32": (replace(CHAIN, temperature=32.0), 0),
}
LOSING = {
    "temperature 300": (replace(CHAIN, temperature=300.0), 0),
    "temperature 300, without HSMM": (replace(CHAIN, temperature=300.0, use_hsmm=False), 0),
    "temperature 1000, another seed": (replace(CHAIN, temperature=1000.0, use_hsmm=False), 1),
}
COLLAPSED = {
    "no estimator": (
        replace(
            CHAIN, straight_through=False, data_init=False, warm_up_epochs=0, revive_under=0.0, vq_weight=1.0
        ),
        0,
    )
}


@pytest.mark.parametrize("name", [*SOUND, *LOSING, *COLLAPSED])
def test_a_chain(name: str, tmp_path: Path) -> None:
    recipe: ChainRecipe
    recipe, seed = {**SOUND, **LOSING, **COLLAPSED}[name]
    with np.load(MOTION) as file:
        trained = train(recipe, dict(file), seed, data_set=SEQUENCES)
    torch.save(dict(trained.checkpoint), tmp_path / "chain.pt")
    bare = examine(tmp_path / "chain.pt")
    report = examine(tmp_path / "chain.pt", data=MOTION)
    found = {f.code: f for f in report.findings}
    stage, labels = bare.find(SequenceStage, "vq"), report.find(StepLabels, "vq")
    sequences = report.find(CodeSequences, "vq")
    assert stage is not None and labels is not None and sequences is not None
    print(
        f"\n{name}: accuracy {labels.accuracy:.3f}, of a table {labels.code_accuracy:.3f}; "
        f"spread {stage.spread}, told apart {stage.told_apart}, constant {sequences.constant_share:.2f}, "
        f"bare {[f.code for f in bare.findings]}, with data {[*found]}"
    )
    assert ("VQ608" in found) == (name in LOSING)
    assert ("VQ604" in found) == (name in COLLAPSED)
    assert ("VQ501" in found) == (name in COLLAPSED)
    assert name in LOSING or "VQ608" not in {f.code for f in bare.findings}
    if name in LOSING:
        assert found["VQ608"].explained_by is None
        assert found["VQ607"].explained_by == "VQ608:vq" if "VQ607" in found else True
    if name in COLLAPSED:
        assert found["VQ604"].explained_by == "VQ101:vq"
