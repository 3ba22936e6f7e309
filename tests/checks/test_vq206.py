"""VQ206 vq-loss-without-gradient just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import run_advice, says

from vqdoctor.core.evidence import CodebookGradient, Evidence, LossPath, LossUse

PATH = LossPath.healthy(alive=False)
WAITING = CodebookGradient.healthy(trainable=True, ema_owned=False)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([PATH], "warning"),
        ([PATH.replace(alive=True)], "passes"),
        ([PATH.replace(alive=None)], "cannot judge"),
        ([PATH.replace(value=None, alive=None)], "cannot judge"),
        ([PATH.replace(value=1e-9)], "warning"),
        ([PATH.replace(value=0.0)], "passes"),
        ([PATH.replace(vq_weight=0.0)], "passes"),
        ([PATH.replace(vq_weight=None, reported=False)], "warning"),
        ([PATH, WAITING], "error"),
        ([PATH, WAITING.replace(ema_owned=True)], "warning"),
        ([PATH.replace(reported=False), WAITING], "warning"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ206", *evidence) == expected


def test_vq205_leaves_a_loss_without_any_gradient_to_it() -> None:
    use = LossUse.healthy(offered=0.0, used=None, gradient=0.0)
    assert says("VQ205", use, PATH) == "passes"
    assert says("VQ205", use, PATH.replace(alive=True)) == "warning"
    # the layer's own loss has a gradient, and the training takes it off
    assert says("VQ205", LossUse.healthy(used=False, gradient=0.0), PATH) == "warning"


def test_vq103_leaves_a_codebook_that_such_a_loss_should_train_to_it() -> None:
    assert says("VQ103", WAITING) == "error"
    assert says("VQ103", WAITING, PATH) == "cannot judge"
    for other in ({"alive": True}, {"reported": False}, {"value": 0.0}, {"vq_weight": 0.0}):
        assert says("VQ103", WAITING, PATH.replace(**other)) == "error"


def test_the_advice_gives_the_encoder_a_gradient() -> None:
    import torch

    z_e = torch.randn(3, 4, requires_grad=True)
    loss = run_advice("VQ206", z_e=z_e, z_q=torch.randn(3, 4))["vq_loss"]
    assert isinstance(loss, torch.Tensor) and loss.requires_grad
