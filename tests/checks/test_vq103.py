"""VQ103 codebook-without-gradient just inside and just outside its limits."""

from __future__ import annotations

import pytest
import torch
from judged import run_advice, says

from vqdoctor.core.evidence import CodebookGradient, EmaState, Evidence, OptimizerMemory

MEMORY = OptimizerMemory.healthy()
CODEBOOK = CodebookGradient.healthy()
EMA = EmaState.healthy()
UNLISTED = MEMORY.replace(codebook_listed=False, unlisted=True)
UNMOVED = MEMORY.replace(codebook_listed=True, codebook_has_state=False)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([CODEBOOK.replace(ema_owned=False)], "warning"),
        ([CODEBOOK.replace(ema_owned=False, trainable=True, gradient=1e-9)], "passes"),
        ([EMA], "passes"),
        ([MEMORY], "cannot judge"),
        ([MEMORY.replace(codebook_listed=True, codebook_has_state=True)], "passes"),
        ([UNMOVED, EMA.replace(never_written=True)], "error"),
        ([EMA.replace(never_written=True)], "cannot judge"),
        # not in the optimizer, under a name of its own: a parameter says a running model, and not a buffer
        ([UNLISTED, CODEBOOK.replace(ema_owned=False, trainable=True, gradient=0.3)], "error"),
        ([UNLISTED, CODEBOOK.replace(ema_owned=True, trainable=True, gradient=0.3)], "passes"),
        ([UNLISTED, CODEBOOK.replace(ema_owned=False)], "warning"),
        ([UNLISTED], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ103", *evidence) == expected


def test_train_codebook_gives_the_codebook_a_gradient() -> None:
    codebook = torch.randn(8, 3, requires_grad=True)
    z_e = torch.randn(5, 3, requires_grad=True)
    vq = run_advice("VQ103", codebook=codebook, z_e=z_e, indices=torch.tensor([0, 1, 1, 2, 7]))["vq"]
    assert isinstance(vq, torch.Tensor)
    (gradient,) = torch.autograd.grad(vq, codebook)
    assert gradient.abs().sum(1).nonzero().flatten().tolist() == [0, 1, 2, 7]
