"""A device beside the CPU: assignment, k-means, the probes and a retraining give the same there.

The CPU stands in its own place once, so that the comparison itself is run everywhere.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from vqdoctor.core.report import Report
from vqdoctor.engine import Settings, examine
from vqdoctor.engine.retrain import retrain
from vqdoctor.vq.kmeans import codes_from_data, nearest

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"
DIGITS = SAMPLES / "digits.npz"
CLOSE = 0.02
"""Relative difference of figures of two devices: they add in another order, and a near tie may flip."""

ON_GPU = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="the CUDA paths need a GPU, and this machine has none"
)
each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU)])


@each_device
@pytest.mark.parametrize(("codes", "dim"), [(8, 1), (256, 16), (1024, 64)])
def test_assignment(device: str, codes: int, dim: int) -> None:
    draw = torch.Generator().manual_seed(0)
    points, centres = (torch.randn(n, dim, generator=draw) for n in (5_000, codes))
    indices, squares = nearest(points, centres)
    others, other_squares = (t.cpu() for t in nearest(points.to(device), centres.to(device)))
    torch.testing.assert_close(squares, other_squares, rtol=1e-3, atol=1e-4)  # though a tie may flip
    assert float((indices == others).float().mean()) > 0.999


@each_device
def test_kmeans(device: str) -> None:
    points = torch.randn(4_000, 8, generator=torch.Generator().manual_seed(0))
    errors = []
    for at in ("cpu", device):
        codes, counts = codes_from_data(points.to(at), 64, generator=torch.Generator().manual_seed(1))
        assert float(counts.sum()) == len(points)
        errors.append(float(nearest(points, codes.cpu())[1].mean()))
    assert errors[1] == pytest.approx(errors[0], rel=CLOSE)


def numbers(report: Report) -> dict[str, float]:
    """Return every figure of the evidence that a batch gave, by kind and field."""
    found: dict[str, float] = {}
    for item in report.to_dict()["evidence"]:
        if item["source"] == "batch":
            fields: dict[str, Any] = {k: v for k, v in item.items() if isinstance(v, int | float)}
            found |= {f"{item['kind']}.{name}": float(value) for name, value in fields.items()}
    return found


@each_device
@pytest.mark.parametrize("name", ["no-ste.pt", "healthy-256.pt"])
def test_probes(device: str, name: str) -> None:
    settings = [Settings(device=at) for at in ("cpu", device)]
    here, there = (examine(SAMPLES / name, data=DIGITS, settings=one) for one in settings)
    assert [f.code for f in there.findings] == [f.code for f in here.findings]
    one, other = numbers(here), numbers(there)
    assert one.keys() == other.keys()
    apart = {
        name: (value, other[name])
        for name, value in one.items()
        if not math.isclose(value, other[name], rel_tol=CLOSE, abs_tol=1e-3)
    }
    assert not apart


@each_device
def test_a_retraining_keeps_its_codes_in_float32(device: str, tmp_path: Path) -> None:
    output = tmp_path / "fixed.pt"
    report = retrain(SAMPLES / "no-ste.pt", output, data=DIGITS, settings=Settings(device=device, epochs=2))
    assert report.retraining is not None and report.retraining.epochs
    written = torch.load(output if output.exists() else SAMPLES / "no-ste.pt", weights_only=True)
    tensors = [t for t in written["model"].values() if t.is_floating_point()]
    assert {t.dtype for t in tensors} == {torch.float32} and {t.device.type for t in tensors} == {"cpu"}
