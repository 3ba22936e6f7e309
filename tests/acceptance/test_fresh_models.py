"""Fresh reference models, on seeds that neither the samples nor the limits have seen.

`make accept` prints the table. Goal: with data the right first finding in at least 14 of 15, and
exit 0 on every healthy one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vqdoctor.engine import examine, exit_code
from vqdoctor.reference.recipes import RECIPES
from vqdoctor.reference.train import train

pytestmark = pytest.mark.accept

DIGITS = Path(__file__).parents[2] / "sample_checkpoints" / "digits.npz"
SEEDS = (101, 102, 103)
FIRST = {
    "healthy-256": {None},
    "no-ste": {"VQ101"},
    "overweighted": {"VQ201"},
    "stalled-ema": {"VQ302", "VQ301"},
    "dead-codes": {"VQ502"},
}


def test_fresh_models_get_the_right_first_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    with np.load(DIGITS) as file:
        data = dict(file)
    rows, right, healthy = [], 0, []
    for name, expected in FIRST.items():
        for seed in SEEDS:
            path = tmp_path / f"{name}-{seed}.pt"
            torch.save(dict(train(RECIPES[name], data, seed).checkpoint), path)
            bare, live = examine(path), examine(path, data=DIGITS)
            first = live.findings[0].code if live.findings else None
            bare_first = bare.findings[0].code if bare.findings else None
            code = int(exit_code(live))
            right += first in expected
            if name.startswith("healthy"):
                healthy.append(code)
            model = live.to_dict()["model"]
            usage = live.to_dict()["layers"][0]["usage"]
            rows.append(
                f"{name:<12} {seed}  with data {first or 'none':<6} exit {code}"
                f"  bare {bare_first or 'none':<6}"
                f"  accuracy {model['accuracy']:.3f}  ECE {model['ece']:.3f}"
                f"  perplexity {usage['perplexity']:7.1f}  active {usage['active']}"
            )
    with capsys.disabled():
        print("\n" + "\n".join(rows) + f"\nright first finding: {right} of {len(rows)}")
    assert right >= 14
    assert healthy == [0] * len(SEEDS)
