"""Codes that a model looks up itself: the table, its vectors and its choices are seen, nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.errors import UserError
from vqdoctor.models.lookups import Found, attach, lookups_found, lookups_shown
from vqdoctor.models.user_code import blamed

K, D = 16, 6
Choose = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def expanded(z: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """VQ-VAE's original formula."""
    squares = z.square().sum(1, keepdim=True) + table.square().sum(1)
    indices = torch.addmm(squares, z, table.t(), beta=1, alpha=-2).argmin(1)
    return functional.embedding(indices, table)


def one_hot(z: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    chosen = functional.one_hot(torch.cdist(z, table).min(1).indices, K).float()
    return chosen @ table


def subtracted(z: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return table.index_select(0, (z[:, None] - table).square().sum(-1).argmin(1))


def by_angle(z: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    similarity = functional.normalize(z, dim=1) @ functional.normalize(table, dim=1).T
    return table[similarity.argmax(dim=1)]


def nearest(z: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return table[torch.cdist(z.detach(), table).topk(1, largest=False).indices.squeeze(1)]


def doubled(z: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    squares = z.pow(2).sum(1, keepdim=True) + table.pow(2).sum(1)
    return table[(squares - 2 * z @ table.T).argmin(1)]


def in_half_precision(z: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    rough, codes = z.detach().bfloat16(), table.detach().bfloat16()
    return table[(codes.pow(2).sum(1) - 2 * rough @ codes.T).argmin(1)]


CHOICES = [expanded, one_hot, subtracted, by_angle, nearest, doubled, in_half_precision]


@pytest.mark.parametrize("choose", CHOICES, ids=lambda c: c.__name__)
def test_the_vectors_codes_and_indices_of_a_lookup(choose: Choose) -> None:
    torch.manual_seed(0)
    table, z = nn.Parameter(torch.randn(K, D)), torch.randn(40, D)
    other = nn.Parameter(torch.randn(K, D))
    with lookups_found({"table": table, "other": other}) as found:
        z_q = choose(z, table)
        _ = z @ other.T
    assert list(found) == ["table"]
    assert torch.allclose(found["table"].z_q, z_q)
    assert torch.equal(table[found["table"].indices], z_q.detach())
    expected = functional.normalize(z, dim=1) if choose is by_angle else z
    assert torch.equal(found["table"].z_e, expected)


def _lookups(run: Callable[[nn.Parameter], object]) -> dict[str, Found]:
    table = nn.Parameter(torch.randn(K, D))
    with lookups_found({"table": table}) as found:
        run(table)
    return found


@pytest.mark.parametrize(
    "run",
    [
        lambda table: functional.embedding(torch.randint(K, (40,)), table),
        lambda table: table[torch.arange(8)],
        lambda table: torch.randn(40, D) @ table.T,
        lambda table: functional.embedding(torch.randn(40, K).argmax(1), table),
        lambda table: functional.embedding(torch.cdist(torch.randn(40, D), table[:4]).argmin(1), table),
    ],
    ids=["tokens", "positions", "a linear map", "a choice without the table", "a choice among fewer rows"],
)
def test_what_is_no_lookup_of_codes(run: Callable[[nn.Parameter], object]) -> None:
    assert _lookups(run) == {}


def images(logits: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A dVAE: logits [B, K, H, W], codes [B, D, H, W], in eval and in train mode."""
    hard = functional.one_hot(logits.argmax(1), K).permute(0, 3, 1, 2).float()
    mixed = functional.gumbel_softmax(logits, tau=2.0, dim=1)
    return torch.einsum("bkhw,kd->bdhw", hard, table), torch.einsum("bkhw,kd->bdhw", mixed, table)


def sequences(logits: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.flatten(2).mT
    return table[logits.argmax(-1)], functional.gumbel_softmax(logits, hard=True).flatten(0, 1) @ table


@pytest.mark.parametrize("choose", [images, sequences])
def test_the_logits_of_a_gumbel_softmax(choose: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> None:
    torch.manual_seed(0)
    table, logits = nn.Parameter(torch.randn(K, D)), torch.randn(2, K, 4, 5)
    with lookups_found({"table": table}, also="logits") as found:
        hard, _ = choose(logits, table)
    assert found["table"].by_logits and torch.equal(found["table"].z_q, hard)
    assert torch.equal(found["table"].z_e.argmax(1 if choose is images else -1), found["table"].indices)
    with lookups_found({"table": table}, also="mixtures") as found:
        mixed = functional.gumbel_softmax(logits, dim=1).permute(0, 2, 3, 1) @ table
        functional.softmax(logits, 1).permute(0, 2, 3, 1) @ table
    assert torch.equal(found["table"].z_q, mixed) and torch.equal(found["table"].z_e, logits)


@pytest.mark.parametrize(
    "run",
    [
        lambda table: torch.randn(40, K).softmax(-1) @ table,
        lambda table: functional.embedding(torch.randn(40, K).argmin(1), table),
        lambda table: functional.gumbel_softmax(torch.randn(40, 3)) @ table[:3],
    ],
    ids=["attention", "the smallest", "a part of the table"],
)
def test_what_is_no_choice_by_logits(run: Callable[[nn.Parameter], object]) -> None:
    table = nn.Parameter(torch.randn(K, D))
    for also in ("logits", "mixtures"):
        with lookups_found({"table": table}, also=also) as found:
            run(table)
        assert found == {}


class Gumbel(nn.Module):
    """A user's dVAE without a module for its codes."""

    def __init__(self, tau: float, hard: bool) -> None:
        super().__init__()
        self.tau, self.hard = tau, hard
        self.encoder, self.book, self.decoder = nn.Linear(5, K), nn.Embedding(K, D), nn.Linear(D, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.encoder(x)
        if self.training:
            weights = functional.gumbel_softmax(logits, tau=self.tau, hard=self.hard)
        else:
            weights = functional.one_hot(logits.argmax(-1), K).float()
        return self.decoder(weights @ self.book.weight)


@pytest.mark.parametrize(("hard", "gap"), [(False, True), (True, False)])
def test_soft_samples_at_a_high_temperature_are_seen_where_no_module_shows_them(
    hard: bool, gap: bool
) -> None:
    torch.manual_seed(0)
    model, x = Gumbel(8.0, hard), torch.randn(512, 8, 5)
    with torch.no_grad():
        model.encoder.weight.mul_(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        functional.mse_loss(model(x), x).backward()
        optimizer.step()

    def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
        return vqdoctor.Losses(task=functional.mse_loss(model(x), x), vq=None)

    report = vqdoctor.examine(model, x, losses=losses)
    assert [layer.name for layer in report.layers] == ["book"]
    assert not [o for o in report.outcomes if o.status == "crashed"]
    assert ("VQ606" in {f.code for f in report.findings}) is gap


class Router(nn.Module):
    """A mixture of experts: the row of the largest logit, in both modes."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.bias, self.head = nn.Linear(5, K), nn.Embedding(K, D), nn.Linear(D, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.bias(self.router(x).argmax(-1)))


def test_a_router_is_no_vq_layer() -> None:
    torch.manual_seed(0)

    def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
        return vqdoctor.Losses(task=functional.mse_loss(model(x), x), vq=None)

    assert not vqdoctor.examine(Router(), torch.randn(64, 8, 5), losses=losses).layers


def test_an_error_of_the_model_stays_the_models() -> None:
    table = nn.Parameter(torch.randn(K, D))
    with (
        pytest.raises(UserError, match=r"test_lookups\.py"),
        blamed("the task fails"),
        lookups_found({"table": table}),
    ):
        table @ torch.randn(3, 3)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.books = nn.ParameterList([torch.randn(K, D)])

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        book = self.books[0]
        indices = torch.cdist(z.reshape(-1, D), book).argmin(1).view(z.shape[:-1])
        z_q = book[indices]
        return z + (z_q - z).detach() + 0 * book[indices]


def test_a_stand_in_shows_and_changes_each_lookup_once() -> None:
    torch.manual_seed(0)
    model, z = Model(), torch.randn(4, 5, D)
    before = model.state_dict().keys()
    stand_in = model.get_submodule(attach(model, "books.0"))
    assert attach(model, "books.0") == "books.0_lookup" and len(model.books) == 1
    assert model.state_dict().keys() == before
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def replace(_: nn.Module, args: tuple[torch.Tensor], output: tuple[torch.Tensor, torch.Tensor]) -> object:
        seen.append((args[0], *output))
        return torch.zeros_like(output[0]), output[1]

    handle = stand_in.register_forward_hook(replace)
    plain = model(z)
    assert not seen  # nothing is shown where nobody looks
    with lookups_shown(model):
        changed = model(z)
    handle.remove()
    [(z_e, z_q, indices)] = seen
    assert torch.equal(z_e, z)
    assert torch.equal(z_q, plain) or torch.allclose(z_q, plain, atol=1e-6)
    assert torch.equal(model.books[0][indices], z_q) and not changed.any()
    again, chosen = stand_in(z)
    assert torch.equal(chosen, indices) and torch.equal(again, z_q)
