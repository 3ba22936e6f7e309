"""Codes that a model looks up itself, of several groups in one tensor [H, K, D] or [K, H, D]."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from vqdoctor.capture.looked_up import looked_up

GROUPS, CODES, DIM = 2, 16, 4


def _by_head(z: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
    chosen = (z[:, :, None] - stack[None]).square().sum(-1).argmin(-1)
    return torch.stack([stack[h][chosen[:, h]] for h in range(GROUPS)], 1)


def _head_alone(z: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
    chosen = [torch.cdist(z[:, h], stack[h]).argmin(-1) for h in range(GROUPS)]
    return torch.stack([functional.embedding(c, stack[h]) for h, c in enumerate(chosen)], 1)


def _gathered(z: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
    chosen = torch.cdist(z.transpose(0, 1), stack).argmin(-1)
    return torch.gather(stack, 1, chosen[..., None].expand(-1, -1, DIM)).transpose(0, 1)


def _at_once(z: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
    scores = stack.square().sum(-1) - 2 * torch.einsum("bhd,hkd->bhk", z, stack)
    return stack[torch.arange(GROUPS), scores.argmin(-1)]


def _farthest(z: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
    chosen = torch.cdist(z.transpose(0, 1), stack).argmax(-1)
    return torch.gather(stack, 1, chosen[..., None].expand(-1, -1, DIM)).transpose(0, 1)


Quantize = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Model(nn.Module):
    def __init__(self, quantize: Quantize, *, heads_first: bool) -> None:
        super().__init__()
        codes = torch.randn(GROUPS, CODES, DIM)
        self.words = nn.Parameter(codes if heads_first else codes.transpose(0, 1).contiguous())
        self.encoder, self.decoder = nn.Linear(10, GROUPS * DIM), nn.Linear(GROUPS * DIM, 10)
        self.quantize, self.heads_first = quantize, heads_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.encoder(x).view(-1, GROUPS, DIM)
        codes = self.quantize(z, self.words if self.heads_first else self.words.transpose(0, 1))
        return self.decoder((z + (codes - z).detach()).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("heads_first", [True, False])
@pytest.mark.parametrize("quantize", [_by_head, _head_alone, _gathered, _at_once])
def test_groups_of_one_tensor_are_found(quantize: Quantize, heads_first: bool) -> None:
    torch.manual_seed(0)
    model, x = Model(quantize, heads_first=heads_first), torch.randn(128, 10)
    found = looked_up(model, lambda m: m(x))
    assert [(view.name, view.num_codes, view.dim) for view in found] == [
        (f"words[head {head}]", CODES, DIM) for head in range(GROUPS)
    ]
    stack = model.words.detach() if heads_first else model.words.detach().transpose(0, 1)
    assert all(torch.equal(torch.tensor(view.codebook), stack[h]) for h, view in enumerate(found))


def test_rows_that_are_not_the_nearest_are_no_codes() -> None:
    torch.manual_seed(0)
    x = torch.randn(128, 10)
    assert not looked_up(Model(_farthest, heads_first=True), lambda m: m(x))


class Far(nn.Module):
    """A table and vectors far from 0, of which the model itself looks the nearest codes up."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Parameter(1000 + torch.randn(64, DIM))  # of over 25 rows, cdist multiplies

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = (x[:, None] - self.words).square().sum(-1).argmin(-1)
        return x + (self.words[chosen] - x).detach()


def test_a_table_far_from_zero_is_found() -> None:
    torch.manual_seed(0)
    model, x = Far(), 1000 + torch.randn(128, DIM)
    assert [(view.name, view.num_codes) for view in looked_up(model, lambda m: m(x))] == [("words", 64)]
