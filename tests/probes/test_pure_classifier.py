"""Behind a pure classifier a code for each class is enough; fewer behind a decoder are a collapse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from live_models import trained
from small_training import DIGITS, Digits

from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings
from vqdoctor.engine import examine
from vqdoctor.engine.verdict import exit_code


def report_of(folder: Path, reconstruction_weight: float, epochs: int = 40) -> Report:
    task = Digits(
        images=300, quantizer="ema", vq_weight=1.0, decay=0.95, num_codes=128,
        reconstruction_weight=reconstruction_weight,
    )  # fmt: skip
    with np.load(DIGITS) as arrays:
        np.savez(folder / "digits.npz", **{name: arrays[name][:300] for name in ("x", "y", "split")})
    model = trained(task, epochs)
    state = {"vqdoctor_task": "conv2d-vq/digits", "config": task.config, "model": model.state_dict()}
    torch.save(state, folder / "model.pt")
    return examine(
        folder / "model.pt", data=folder / "digits.npz", settings=Settings(select=("VQ501", "VQ502"))
    )


@pytest.mark.slow
def test_a_pure_classifier_is_not_accused(tmp_path: Path) -> None:
    report = report_of(tmp_path, 0.0)
    assert {f.code: f.severity.label for f in report.findings} == {"VQ501": "note", "VQ502": "note"}
    assert (report.verdict, exit_code(report)) == ("healthy", 0)


@pytest.mark.slow
def test_a_collapse_behind_a_decoder_is_one(tmp_path: Path) -> None:
    report = report_of(tmp_path, 3.0, epochs=4)
    assert report.verdict == "collapsed"
