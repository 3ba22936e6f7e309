"""A call asked again: the same answer, or that to another question."""

from __future__ import annotations

import torch
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.capture.call import Call
from vqdoctor.capture.watch import watch


def called(layer: nn.Module, z: torch.Tensor) -> Call:
    with watch(layer) as seen:
        layer(z)
    return seen.calls[-1]


def test_asked_again_a_layer_gives_the_same_call() -> None:
    torch.manual_seed(0)
    layer, z = VectorQuantize(dim=8, codebook_size=16).eval(), torch.randn(2, 5, 8, requires_grad=True)
    first = called(layer, z)
    again = first.again(seed=0)
    assert first.given is z and torch.equal(again.z_e, first.z_e)
    assert first.z_q is not None and again.z_q is not None and torch.equal(again.z_q, first.z_q)
    assert first.indices is not None and again.indices is not None
    assert torch.equal(again.indices, first.indices)
    assert not again.z_q.requires_grad and again.losses == ()


def test_asked_about_another_input_it_answers_that() -> None:
    torch.manual_seed(0)
    layer, z = VectorQuantize(dim=8, codebook_size=16).eval(), torch.randn(2, 5, 8)
    other = torch.randn(2, 5, 8)
    first = called(layer, z)
    again = first.again(seed=0, change=lambda t: other if t is first.given else t)
    assert again.z_q is not None and torch.equal(again.z_q, layer(other)[0])


def test_the_same_chance_at_every_asking() -> None:
    class Dice(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z + torch.randn_like(z)

    call = called(Dice(), torch.zeros(3, 4))
    one, other = call.again(seed=7).z_q, call.again(seed=7).z_q
    assert one is not None and other is not None and torch.equal(one, other)


def test_the_precision_of_autocast_is_noted_and_another_module_can_be_asked() -> None:
    layer, z = VectorQuantize(dim=8, codebook_size=16).eval(), torch.randn(2, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert called(layer, z).autocast is torch.bfloat16
    call = called(layer, z)
    assert call.autocast is None
    assert torch.equal(call.again(0, module=nn.Identity()).output, z)


def test_watching_copies_nothing() -> None:
    """A user's own training loop may be watched at every step."""
    layer, z = VectorQuantize(dim=8, codebook_size=16).train(), torch.randn(2, 5, 8, requires_grad=True)
    call = called(layer, z)
    assert call.z_e.data_ptr() == z.data_ptr() and call.args[0] is z
    assert call.z_q is not None and call.z_q.data_ptr() == call.output[0].data_ptr()
