"""Codebooks that are no module of their own: the model's forward compares, chooses and looks up by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import GradientPath, TaskGradient, Usage
from vqdoctor.core.report import Report

K, D = 16, 4


def pull(z: torch.Tensor, z_q: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(z_q, z.detach()) + 0.25 * functional.mse_loss(z, z_q.detach())


class Product(nn.Module):
    """Two groups of dimensions, each with an embedding whose name says nothing."""

    def __init__(self, estimator: bool = True) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 2 * D), nn.Linear(2 * D, 8)
        self.a, self.b = nn.Embedding(K, D), nn.Embedding(K, D)
        self.estimator = estimator

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts, loss = [], torch.zeros(())
        self.chosen = {}
        for name, z in zip("ab", self.encoder(x).chunk(2, -1), strict=True):
            book = self.get_submodule(name)
            self.chosen[name] = torch.cdist(z, book.weight).argmin(1)
            z_q = book(self.chosen[name])
            loss = loss + pull(z, z_q)
            parts.append(z + (z_q - z).detach() if self.estimator else z_q)
        return self.decoder(torch.cat(parts, -1)), loss


class Residual(nn.Module):
    """Three levels in a list of parameters, with one estimator around their sum, or none."""

    def __init__(self, estimator: bool = True) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, D), nn.Linear(D, 8)
        self.books = nn.ParameterList(torch.randn(K, D) * 0.5**level for level in range(3))
        self.estimator = estimator

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = rest = self.encoder(x)
        total, loss = torch.zeros_like(z), torch.zeros(())
        self.chosen = {}
        for level, book in enumerate(self.books):
            self.chosen[f"books.{level}"] = (rest[:, None] - book).square().sum(-1).argmin(1)
            z_q = book[self.chosen[f"books.{level}"]]
            loss = loss + pull(rest, z_q)
            total, rest = total + z_q, rest - z_q.detach()
        return self.decoder(z + (total - z).detach() if self.estimator else total), loss


class Map(nn.Module):
    """A feature map is flattened for the lookup, and the estimator stands around the map."""

    def __init__(self, estimator: bool = True) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(1, D, 2, 2), nn.ConvTranspose2d(D, 1, 2, 2)
        self.words = nn.Parameter(torch.randn(K, D))
        self.estimator = estimator

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x)
        flat = z.permute(0, 2, 3, 1).reshape(-1, D)
        self.chosen = {"words": torch.cdist(flat, self.words).argmin(1)}
        z_q = self.words[self.chosen["words"]].view(len(z), *z.shape[2:], D).permute(0, 3, 1, 2)
        loss = pull(z, z_q)
        return self.decoder(z + (z_q - z).detach() if self.estimator else z_q), loss


class Columns(nn.Module):
    """The codes are the columns of a matrix."""

    def __init__(self, estimator: bool = True) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, D), nn.Linear(D, 8)
        self.words = nn.Parameter(torch.randn(D, K))
        self.estimator = estimator

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x)
        far = z.square().sum(1, keepdim=True) - 2 * z @ self.words + self.words.square().sum(0)
        self.chosen = {"words": far.argmin(1)}
        z_q = functional.embedding(self.chosen["words"], self.words.t())
        return self.decoder(z + (z_q - z).detach() if self.estimator else z_q), pull(z, z_q)


def losses(model: nn.Module, batch: torch.Tensor) -> vqdoctor.Losses:
    reconstruction, vq = model(batch)
    return vqdoctor.Losses(task=functional.mse_loss(reconstruction, batch), vq=vq)


def examined(kind: Any, estimator: bool) -> tuple[Report, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = kind(estimator)
    x = torch.randn(64, 1, 8, 8) if kind is Map else torch.randn(256, 8)
    report = vqdoctor.examine(model, x, losses=losses)
    with torch.no_grad():
        model.eval()(x)
    return report, model.chosen


@pytest.mark.parametrize("kind", [Product, Residual, Map, Columns], ids=lambda kind: kind.__name__)
def test_each_table_is_found_and_counted_by_the_models_own_choices(kind: Any) -> None:
    report, chosen = examined(kind, True)
    usage = {layer.name: report.find(Usage, layer.name) for layer in report.layers}
    assert usage.keys() == chosen.keys()
    for name, indices in chosen.items():
        found = usage[name]
        assert found is not None and found.used == len(indices.unique())
        assert found.sample_size == len(indices)
    assert "VQ101" not in {finding.code for finding in report.findings}


@pytest.mark.parametrize("kind", [Product, Residual, Map, Columns], ids=lambda kind: kind.__name__)
def test_a_missing_estimator_is_seen(kind: Any) -> None:
    report, chosen = examined(kind, False)
    assert {finding.layer for finding in report.findings if finding.code == "VQ101"} == chosen.keys()


class Average(nn.Module):
    """Codes that an EMA moves, looked up in a method under no_grad."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("embed", torch.randn(K, D))
        self.register_buffer("n", torch.ones(K))
        self.register_buffer("s", self.embed.clone())

    @torch.no_grad()
    def find(self, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.cdist(flat, self.embed).argmin(1)
        return self.embed[chosen], chosen

    @torch.no_grad()
    def update(self, flat: torch.Tensor, chosen: torch.Tensor) -> None:
        ones = functional.one_hot(chosen, K).to(flat)
        self.n.lerp_(ones.sum(0), 0.1)
        self.s.lerp_(ones.T @ flat, 0.1)
        self.embed.copy_(self.s / self.n.clamp_min(1e-3)[:, None])


class Helped(Map):
    """The same with its codes in a helper, and the commitment loss and the estimator in the model."""

    def __init__(self, estimator: bool = True, *, moves: bool = True, again: bool = False) -> None:
        super().__init__(estimator)
        del self.words
        self.words, self.moves, self.again = Average(), moves, again

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x)
        flat = z.permute(0, 2, 3, 1).reshape(-1, D)
        codes, chosen = self.words.find(flat.detach())
        self.chosen = {"words": chosen}
        if self.training and self.moves:
            self.words.update(flat, chosen)
        if self.again:  # the same form once more, in tensors of its own
            z_e = z.permute(0, 2, 3, 1)
            z_q = codes.view(z_e.shape)
            z_q = (z_e + (z_q - z_e).detach()).permute(0, 3, 1, 2)
        else:
            z_q = codes.view(len(z), *z.shape[2:], D).permute(0, 3, 1, 2)
            z_q = z + (z_q - z).detach() if self.estimator else z_q
        return self.decoder(z_q), functional.mse_loss(z, z_q.detach())


def said(model: nn.Module, weight: float = 1.0) -> tuple[Report, set[str]]:
    torch.manual_seed(0)
    x = torch.rand(64, 1, 8, 8)
    report = vqdoctor.examine(model, x, losses=losses, trained_vq_weight=weight)
    assert not [outcome.code for outcome in report.outcomes if outcome.status == "crashed"]
    return report, {finding.code for finding in report.findings}


def test_an_estimator_around_the_map_is_where_the_gradient_is_judged() -> None:
    report, found = said(Helped())
    assert not [o.code for o in report.outcomes if "looks its codes up itself" in (o.reason or "")]
    (path,) = (e for e in report.evidence if isinstance(e, GradientPath))
    assert path.layer == "words" and path.estimator == "straight-through"
    assert not found & {"VQ101", "VQ102", "VQ103", "VQ201"}
    assert report.find(TaskGradient, "words") is not None
    usage = report.find(Usage, "words")
    assert usage is not None and usage.source == "batch"


def test_an_estimator_on_another_view_of_the_map_is_not_accused() -> None:
    report, found = said(Helped(again=True))
    assert not found & {"VQ101", "VQ102", "VQ103", "VQ201", "VQ205", "VQ206"}
    assert report.find(Usage, "words") is not None


def test_what_is_wrong_around_the_map_is_told() -> None:
    assert "VQ102" in said(Helped(estimator=False))[1]
    assert "VQ103" in said(Helped(moves=False))[1]
    assert "VQ201" in said(Helped(), weight=3000.0)[1]


class Words(nn.Module):
    """A language model: tokens and positions are embedded, and no code is chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(32, D), nn.ParameterList([torch.randn(8, D)])
        self.mix = nn.Linear(D, D)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ids = (x.abs() * 10).long().clamp_max(31)
        h = self.mix(self.tokens(ids) + self.places[0][torch.arange(8)])
        logits = h @ self.tokens.weight.T
        return self.tokens(logits.argmax(-1) * 0 + ids).sum(-1), h.square().mean()


def test_tables_of_tokens_and_positions_are_no_codebooks() -> None:
    torch.manual_seed(0)
    report = vqdoctor.examine(Words(), torch.randn(64, 8), losses=losses)
    assert [layer.name for layer in report.layers] == []


class DiscreteVae(nn.Module):
    """A discrete VAE as DALLE-pytorch writes it: logits draw the rows of a table called `codebook`."""

    def __init__(self, *, trained: bool = True, by_hand: bool = False) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(1, K, 2, 2), nn.ConvTranspose2d(D, 1, 2, 2)
        self.codebook, self.trained, self.by_hand = nn.Embedding(K, D), trained, by_hand

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.encoder(x)
        if self.training and self.by_hand:
            soft = (logits - torch.rand_like(logits).log().neg().log()).softmax(1)
            hard = functional.one_hot(soft.argmax(1), K).permute(0, 3, 1, 2).float()
            chosen = hard - soft.detach() + soft
        elif self.training and self.trained:
            chosen = functional.gumbel_softmax(logits, tau=1.0, dim=1, hard=True)
        else:
            chosen = functional.one_hot(logits.argmax(1), K).permute(0, 3, 1, 2).float()
        z_q = torch.einsum("bnhw,nd->bdhw", chosen, self.codebook.weight)
        share = logits.softmax(1).mean((0, 2, 3))
        return self.decoder(z_q), (share * (share * K + 1e-8).log()).sum()


@pytest.mark.parametrize("trained", [True, False], ids=["drawn", "never trained"])
def test_codes_that_logits_draw_are_counted_where_their_gradient_reaches_the_logits(
    trained: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = DiscreteVae(trained=trained)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    x = torch.rand(64, 1, 8, 8)

    class Task:
        vq_weight = 0.01

        def model(self) -> nn.Module:
            return DiscreteVae(trained=trained)

        def batches(self, split: str) -> list[torch.Tensor]:
            return list(x.split(32))

        def losses(self, model: nn.Module, batch: torch.Tensor) -> vqdoctor.Losses:
            return losses(model, batch)

    report = vqdoctor.examine(tmp_path / "model.pt", task=Task())
    usage = report.find(Usage, "codebook")
    if not trained:
        assert usage is None
        return
    with torch.no_grad():
        counts = torch.bincount(model.encoder(x).argmax(1).flatten(), minlength=K)
    assert usage is not None and usage.source == "batch"
    assert (usage.used, usage.sample_size) == (int((counts > 0).sum()), int(counts.sum()))
    assert not {"data-init", "revive-dead-codes"} & {step.remedy for step in report.plan}


def test_noise_that_a_model_adds_to_its_logits_is_no_noise_before_the_codes() -> None:
    torch.manual_seed(0)
    report = vqdoctor.examine(DiscreteVae(by_hand=True), torch.rand(64, 1, 8, 8), losses=losses)
    assert report.find(Usage, "codebook") is not None
    assert "VQ606" not in {finding.code for finding in report.findings}


class Discretizing(nn.Module):
    """Its quantizer has the short name of a discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.disc, self.decoder = nn.Linear(64, 64), Atoms(), nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss = self.disc(self.encoder(x.flatten(1)))
        return self.decoder(z_q).view_as(x), loss


class Atoms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.atoms = nn.Parameter(torch.randn(K, D))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = z.unflatten(-1, (-1, D))
        z_q = self.atoms[torch.cdist(parts, self.atoms).argmin(-1)]
        return (parts + (z_q - parts).detach()).flatten(-2), pull(parts, z_q)


def test_a_quantizer_called_disc_is_no_discriminator(tmp_path: Path) -> None:
    torch.save({"model": Discretizing().state_dict()}, tmp_path / "model.pt")

    class Task:
        vq_weight = 1.0

        def model(self) -> nn.Module:
            return Discretizing()

        def batches(self, split: str) -> list[torch.Tensor]:
            return list(torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).split(32))

        def losses(self, model: nn.Module, batch: torch.Tensor) -> vqdoctor.Losses:
            return losses(model, batch)

    report = vqdoctor.examine(tmp_path / "model.pt", task=Task())
    assert [layer.keys["codebook"] for layer in report.layers] == ["model.disc.atoms"]
    assert not [outcome for outcome in report.outcomes if outcome.status == "crashed"]


class Scales(nn.Module):
    """One table for a map at three scales, coarse to fine, as in VAR."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(1, D, 2, 2), nn.ConvTranspose2d(D, 1, 2, 2)
        self.words = nn.Embedding(K, D)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x)
        rest, total, self.chosen = z.detach(), torch.zeros_like(z), []
        for side in (1, 2, 4):
            flat = functional.adaptive_avg_pool2d(rest, side).permute(0, 2, 3, 1).reshape(-1, D)
            self.chosen.append(torch.cdist(flat, self.words.weight).argmin(1))
            codes = self.words(self.chosen[-1]).view(len(z), side, side, D).permute(0, 3, 1, 2)
            total = total + functional.interpolate(codes, size=z.shape[2:])
            rest = z.detach() - total.detach()
        return self.decoder(z + (total - z).detach()), pull(z, total)


def test_the_codes_of_all_scales_are_counted() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 1, 8, 8)
    report = vqdoctor.examine(model := Scales(), x, losses=losses)
    with torch.no_grad():
        model.eval()(x)
    usage = report.find(Usage, "words")
    assert usage is not None and usage.sample_size == 64 * (1 + 4 + 16)
    assert usage.used == len(torch.cat(model.chosen).unique())


class Snap(torch.autograd.Function):
    """Nearest rows; the gradient goes to the rows, and to the vectors too where the estimator is there."""

    @staticmethod
    def forward(
        ctx: Any, z: torch.Tensor, table: torch.Tensor, estimator: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.cdist(z, table).argmin(1)
        ctx.estimator = estimator
        ctx.mark_non_differentiable(chosen)
        return table[chosen], chosen

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, None, None]:
        return gradient if ctx.estimator else None, None, None


class Snapped(nn.Module):
    """The lookup is a custom function of a model that gives the codes beside its output."""

    def __init__(self, estimator: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, D), nn.Linear(D, 8)
        self.words, self.estimator = nn.Parameter(torch.randn(K, D)), estimator

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z = self.encoder(x)
        z_q, chosen = Snap.apply(z, self.words, self.estimator)
        return self.decoder(z_q), pull(z, self.words[chosen]), chosen


@pytest.mark.parametrize("estimator", [True, False])
def test_a_lookup_in_a_custom_function(estimator: bool) -> None:
    torch.manual_seed(0)
    report = vqdoctor.examine(
        Snapped(estimator),
        torch.randn(256, 8),
        losses=lambda model, x: vqdoctor.Losses(
            task=functional.mse_loss((found := model(x))[0], x), vq=found[1]
        ),
    )
    assert [layer.name for layer in report.layers] == ["words"]
    found = {finding.code for finding in report.findings}
    assert bool(found & {"VQ101", "VQ102"}) is not estimator
    assert "VQ103" not in found
