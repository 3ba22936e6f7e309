"""Two writers and half precision, as a bare file of a really trained layer tells them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.checks import all_checks
from vqdoctor.core.check import CannotJudge
from vqdoctor.core.evidence import Evidence
from vqdoctor.core.levels import Confidence
from vqdoctor.layouts import find_quantizers
from vqdoctor.probes.file import FileContext, ema_state, lookup_precision, optimizer_memory

CHECKS = {check.code: check for check in all_checks()}


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., Any]:
    """Return a function from what is saved to what a check says of it."""

    def told(saved: dict[str, Any], code: str) -> Any:
        path = tmp_path / "model.pt"
        torch.save(saved, path)
        checkpoint = open_checkpoint(path)
        context = FileContext(checkpoint=checkpoint, views=find_quantizers(checkpoint.tensors).views)
        probes = (ema_state, optimizer_memory, lookup_precision)
        items = [item for probe in probes for item in probe.PROBE.measure(context)]
        return CHECKS[code].judge({type(e): e for e in items if isinstance(e, Evidence) and e.layer})

    return told


def trained(**options: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(16, 8), nn.Linear(8, 16)
    model = nn.ModuleDict(
        {"encoder": encoder, "vq": VectorQuantize(dim=8, codebook_size=32, **options), "decoder": decoder}
    )
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    data = torch.randn(512, 16)
    for _ in range(300):
        x = data[torch.randint(512, (64,))]
        z_q, _, loss = model["vq"](encoder(x)[:, None])
        adam.zero_grad()
        (functional.mse_loss(decoder(z_q[:, 0]), x) + loss.sum()).backward()
        adam.step()
    return {"model": model.state_dict(), "optimizer": adam.state_dict()}


def test_an_optimizer_state_beside_codes_that_the_ema_wrote(told: Callable[..., Any]) -> None:
    (problem,) = told(trained(orthogonal_reg_weight=1.0), "VQ104")
    assert problem.confidence is Confidence.MEDIUM and problem.decide_with


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"learnable_codebook": True, "ema_update": False, "orthogonal_reg_weight": 1.0},
        {"learnable_codebook": True, "ema_update": False, "threshold_ema_dead_code": 1},
    ],
)
def test_one_writer_is_none_too_many(told: Callable[..., Any], options: dict[str, Any]) -> None:
    # "no EMA sums that were ever written" is as good
    with contextlib.suppress(CannotJudge):
        assert told(trained(**options), "VQ104") == []


@pytest.mark.parametrize(("dtype", "bits"), [(torch.bfloat16, 8), (torch.float16, 11), (torch.float32, 24)])
@pytest.mark.parametrize(("offset", "spread"), [(0.0, 0.3), (3.0, 0.01)])
def test_stored_precision_against_a_naive_count(
    told: Callable[..., Any], dtype: torch.dtype, bits: int, offset: float, spread: float
) -> None:
    torch.manual_seed(0)
    codes = (offset + spread * torch.randn(64, 16)).to(dtype)
    problems = told({"vq.embedding.weight": codes}, "VQ108")
    rows = np.unique(codes.double().numpy(), axis=0)
    apart = np.square(rows[:, None] - rows).sum(-1) + np.diag([np.inf] * len(rows))
    naive = int((apart.min(1) < 2.0**-bits * np.square(rows).sum(1)).sum())
    assert bool(problems) is (naive > 32) is (offset > 0 and bits < 24)
    if problems:
        assert {m.name: m.value for m in problems[0].measurements}["blurred_rows"] == naive
