from __future__ import annotations

import pytest
import torch
from small_training import CPU, Digits, reference_layer
from torch import nn

from vqdoctor.reference.quantizer import Quantized
from vqdoctor.training.precision import against_bfloat16, bfloat16_is_fast
from vqdoctor.training.splits import Splits


class Front(nn.Module):
    """Uses a quantizer through a method, as EnCodec's model does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        inner.encode = inner.forward

    def forward(self, z_e: torch.Tensor) -> Quantized:
        return self.inner.encode(z_e)


def test_a_layer_that_no_one_calls_cannot_be_kept_in_float32() -> None:
    task = Digits()
    model = task.model()
    layer = reference_layer(model)
    batch = next(iter(Splits(task, CPU).in_order()))
    assert against_bfloat16(model, task, batch, (layer,), None) is None
    model.vq = Front(model.vq)
    why = against_bfloat16(model, task, batch, (layer,), None)
    assert why == "a VQ layer that is used through its methods cannot be kept in float32"


def test_the_look_leaves_no_mark() -> None:
    task = Digits()
    model = task.model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = next(iter(Splits(task, CPU).in_order()))
    against_bfloat16(model, task, batch, (reference_layer(model),), None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not vars(model.vq)["_forward_hooks"]
    assert "forward" not in vars(model.vq)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_a_scripted_layer_is_left_in_float32() -> None:
    task = Digits()
    model = task.model()
    scripted = reference_layer(model)
    model.vq = torch.jit.script(nn.Identity())
    batch = next(iter(Splits(task, CPU).in_order()))
    assert against_bfloat16(model, task, batch, (scripted,), None) is not None


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_only_cuda_is_faster_in_bfloat16(device: str) -> None:
    assert not bfloat16_is_fast(torch.device(device))
