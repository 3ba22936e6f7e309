"""Finite scalar quantization: the levels of another implementation, and a stand-in for a layer."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from vector_quantize_pytorch import FSQ

from vqdoctor.capture.call import Call
from vqdoctor.training.finite_scalar import FiniteScalar, InItsPlace, levels_of


@pytest.mark.parametrize("num_codes", [2, 8, 16, 100, 256, 512, 1000, 1024, 4096, 65536])
def test_the_product_of_the_levels_is_near_the_number_of_codes(num_codes: int) -> None:
    levels = levels_of(num_codes)
    assert all(2 <= level <= 8 for level in levels)
    assert abs(math.prod(levels) / num_codes - 1) <= 0.13, levels


@pytest.mark.parametrize("levels", [(8, 6, 5), (7, 6, 6), (3,)])
def test_the_levels_are_those_of_another_implementation(levels: tuple[int, ...]) -> None:
    z = torch.randn(500, len(levels), generator=torch.Generator().manual_seed(0)) * 2
    theirs = FSQ(list(levels))
    ours, codes = FiniteScalar(levels)(z)
    assert torch.allclose(ours, theirs.quantize(z), atol=1e-6)
    assert torch.equal(codes.int(), theirs.codes_to_indices(ours).int())
    assert int(codes.max()) < math.prod(levels)


def test_the_gradient_passes() -> None:
    z = torch.zeros(4, 2, requires_grad=True)
    FiniteScalar((5, 5))(z)[0].sum().backward()
    assert z.grad is not None and bool((z.grad > 0.9).all())


class Answer(NamedTuple):
    z_q: torch.Tensor
    indices: torch.Tensor
    loss: torch.Tensor


def test_it_answers_as_the_layer_did_for_any_number_of_samples() -> None:
    z_e = torch.randn(2, 6, 4, 4)
    call = Call.of(torch.nn.Identity(), (z_e,), {}, z_e)
    call.take(Answer(torch.randn(2, 6, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long), torch.tensor(3.0)))
    stand_in = InItsPlace(call, axis=1, num_codes=256)
    answer = stand_in(torch.randn(5, 6, 4, 4))
    assert isinstance(answer, Answer)
    assert answer.z_q.shape == (5, 6, 4, 4) and answer.indices.shape == (5, 4, 4) and float(answer.loss) == 0
