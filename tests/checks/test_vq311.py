"""VQ311: hand-made evidence around its limits, and EMA files of five families with overwritten codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from judged import says
from layout_families import STORED

from vqdoctor.core.evidence import EmaState, Evidence, Initialisation
from vqdoctor.engine import examine
from vqdoctor.engine.repair import repair_file

START, EMA = Initialisation.healthy(), EmaState.healthy()
FAMILIES = (
    "encodec",
    "rosinality's VQ-VAE-2",
    "zalando's VectorQuantizerEMA",
    "taming's EMA quantizer",
    "home-made EMA buffers",
)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([START.replace(identical_rows=256), EMA], "error"),
        ([START.replace(identical_rows=255), EMA], "passes"),
        ([START.replace(identical_rows=256), EMA.replace(means_spread=5e-4)], "passes"),
        ([START.replace(identical_rows=256), EMA.replace(never_written=True)], "cannot judge"),
        ([START.replace(identical_rows=256), EMA.replace(means_spread=None)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ311", *evidence) == expected


def _state(family: str) -> dict[str, torch.Tensor]:
    """A file of the family as after an EMA: counts above zero, random sums, and whatever codes."""
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.rand(shape, generator=generator) for name, shape in STORED[family].items()}
    for name in state:
        if any(word in name for word in ("inited", "initted")):
            state[name] = torch.ones_like(state[name])
        elif "cluster_size" in name or name.endswith((".N", "counts")):
            state[name] = 4 + 8 * state[name]
    return state


@pytest.mark.parametrize("family", FAMILIES)
def test_an_overwritten_codebook_is_named_and_restored(family: str, tmp_path: Path) -> None:
    """Zeros in place of the codes: VQ311 and neither VQ306 nor a collapse; `fix` writes sums over counts."""
    state = _state(family)
    sound = _saved(state, tmp_path / "sound.pt")
    layers = examine(sound).layers
    for layer in layers:
        counts, sums, codes = (layer.keys[role] for role in ("counts", "sums", "codebook"))
        wide = state[counts] if state[sums].shape[-1] == len(state[counts]) else state[counts][:, None]
        state[codes] = state[sums] / wide
    report = examine(_saved(state, sound))
    assert "VQ311" not in {finding.code for finding in report.findings}
    kept = {layer.keys["codebook"]: state[layer.keys["codebook"]] for layer in layers}
    state.update({key: torch.zeros_like(codes) for key, codes in kept.items()})
    sick = _saved(state, tmp_path / "sick.pt")
    report = examine(sick)
    codes_found = {finding.code for finding in report.findings}
    assert report.findings[0].code == "VQ311"
    assert not codes_found & {"VQ306", "VQ501", "VQ502"}
    assert "codes-from-sums" in {step.remedy for step in report.plan}
    repair_file(sick, tmp_path / "fixed.pt")
    fixed = torch.load(tmp_path / "fixed.pt", weights_only=True)
    for key, codes in kept.items():
        torch.testing.assert_close(fixed[key], codes, rtol=1e-4, atol=1e-5)


def _saved(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path
