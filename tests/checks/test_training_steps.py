"""What training steps on a copy (`--probe-steps`) add to the checks, on really trained models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from use_models import DIGITS, found

from vqdoctor.core.levels import Confidence, Severity
from vqdoctor.engine import Settings, examine
from vqdoctor.reference.recipes import PLAIN
from vqdoctor.reference.train import train

pytestmark = pytest.mark.usefixtures("one_thread", "without_experiments")


@pytest.fixture
def without_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the experiments that take as many steps, over and over: they have tests of their own."""
    monkeypatch.setattr("vqdoctor.engine.session.MOST_STEPS", 0)


@pytest.mark.parametrize("weight", [0.001, pytest.param(0.1, marks=pytest.mark.accept)])
def test_a_trace_shows_a_runaway_early_and_whether_training_still_helps(
    tmp_path: Path, weight: float
) -> None:
    recipe = replace(PLAIN, vq_weight=weight, epochs=4)
    torch.save(dict(train(recipe, dict(np.load(DIGITS)), 0).checkpoint), tmp_path / "model.pt")
    reports = [
        examine(tmp_path / "model.pt", data=DIGITS, settings=Settings(probe_steps=steps)) for steps in (0, 60)
    ]
    for report in reports:  # without a trace: by the recorded weight, and a decoder that does not know z_e
        assert set(found(report, "VQ202")) == ({"VQ202"} if weight == 0.001 else set())
    advice = [f for report in reports for f in report.findings if f.code == "VQ401"]
    assert [f.severity for f in advice] == [Severity.NOTE] * 2
    assert [f.decide_with for f in advice] == ["--probe-steps 60", ""]
    assert advice[0].confidence is Confidence.LOW
    # under the usual weight the perplexity of the batches doubles in 60 steps, in a runaway it stands still
    assert advice[1].confidence is (Confidence.LOW if weight == 0.001 else Confidence.MEDIUM)


@pytest.mark.parametrize("name", ["healthy-256.pt", pytest.param("healthy-512.pt", marks=pytest.mark.accept)])
def test_healthy_samples_stay_healthy_under_a_trace(name: str) -> None:
    report = examine(DIGITS.with_name(name), data=DIGITS, settings=Settings(probe_steps=20))
    assert report.findings == ()
    assert {"trace", "revival", "encoder-spread"} <= {e.kind for e in report.evidence}
