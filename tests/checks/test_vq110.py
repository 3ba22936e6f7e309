"""VQ110 residual-not-subtracted: models that subtract, that do not, and that put codes side by side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import vector_quantize_pytorch as vqp
from judged import run_advice, says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import ResidualLevel

DIM, CODES = 4, 16
LEVEL = ResidualLevel.healthy()

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_first_level_is_never_accused() -> None:
    assert says("VQ110", LEVEL.replace(subtracted=False)) == "error"
    assert says("VQ110", LEVEL.replace(subtracted=False, level=1)) == "passes"
    assert says("VQ110", LEVEL) == "passes"
    from_z_e = LEVEL.replace(subtracted=False, last_only=True)
    assert says("VQ110", from_z_e.replace(level=2)) == "passes"
    assert says("VQ110", from_z_e.replace(level=3)) == "error"


class Level(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CODES, DIM)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.cdist(z.detach(), self.embedding.weight.detach()).argmin(-1)
        codes = self.embedding(chosen)
        loss = functional.mse_loss(codes, z.detach()) + functional.mse_loss(z, codes.detach())
        return z + (codes - z).detach(), loss


class Model(nn.Module):
    """Levels in a loop of the model itself, over vectors that a mask has picked.

    Args:
        form: "sound", "no subtraction", "mean" for the same with the codes' mean, "added" where codes are
            added to the residual, "from z_e" where each residual is z_e minus the last codes, "side by side"
            for codebooks that quantize one vector each for themselves, or "stream" for layers whose codes are
            added to what they read, as blocks of a transformer do.
    """

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.encoder = nn.Conv1d(3, DIM, 1)
        self.levels = nn.ModuleList(Level() for _ in range(3))
        self.decoder = nn.Conv1d(DIM * (3 if form == "side by side" else 1), 3, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x).transpose(1, 2)
        keep = x.sum(1) > 0
        residual, found, losses = z[keep], [], []
        for level in self.levels:
            codes, loss = level(residual)
            found.append(codes)
            losses.append(loss)
            sign = {"sound": -1, "from z_e": -1, "added": 1, "stream": 1}.get(self.form, 0)
            residual = (z[keep] if self.form == "from z_e" else residual) + sign * codes.detach()
        picked = torch.cat(found, 1) if self.form == "side by side" else torch.stack(found).sum(0)
        picked = picked / len(found) if self.form == "mean" else picked
        picked = residual if self.form == "stream" else picked
        whole = z.new_zeros(*keep.shape, picked.shape[1])
        whole[keep] = picked
        return self.decoder(whole.transpose(1, 2)), torch.stack(losses).sum()


class Theirs(nn.Module):
    """lucidrains' residual quantizer, as it is and with a patch that forgets to subtract."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv1d(3, DIM, 1), nn.Conv1d(DIM, 3, 1)
        self.vq = vqp.ResidualVQ(dim=DIM, codebook_size=CODES, num_quantizers=3)
        self.form = form

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x).transpose(1, 2)
        if self.form == "sound":
            z_q, _, loss = self.vq(z)
        else:
            codes, _, losses = zip(*(level(z) for level in self.vq.layers), strict=True)
            whole = torch.stack(codes)
            z_q, loss = whole.mean(0) if self.form == "mean" else whole.sum(0), torch.stack(losses)
        return self.decoder(z_q.transpose(1, 2)), loss.sum()


class Flat(nn.Module):
    """A decoder of all positions at once, which gets the sums side by side."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(30, 5 * DIM), nn.Linear(5 * DIM, 30)
        self.levels = nn.ModuleList(Level() for _ in range(3))
        self.form = form

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        residual = self.encoder(x.flatten(1)).view(len(x), 5, DIM)
        whole, loss = torch.zeros_like(residual), residual.new_zeros(())
        for level in self.levels:
            codes, added = level(residual)
            whole, loss = whole + codes, loss + added
            residual = residual - codes.detach() if self.form == "sound" else residual
        return self.decoder(whole.flatten(1)).view_as(x), loss


class Mapped(Level):
    """A level that sees its input through a map of its own, as DAC's factorized codes do."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes, loss = super().forward(self.before(z))
        return self.after(codes), loss


class Chosen(nn.Module):
    """A level that chooses its code by logits of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.logits, self.embedding = nn.Linear(DIM, CODES), nn.Embedding(CODES, DIM)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.logits(z)
        shares = logits.softmax(-1)
        hard = functional.one_hot(logits.argmax(-1), CODES).to(z.dtype)
        return (hard + shares - shares.detach()) @ self.embedding.weight, shares.square().mean()


class Additive(nn.Module):
    """Levels that see one input, each in a way of its own, and whose codes are added up or averaged."""

    def __init__(self, level: type[nn.Module], form: str) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv1d(3, DIM, 1), nn.Conv1d(DIM, 3, 1)
        self.levels = nn.ModuleList(level() for _ in range(3))
        self.form = form

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x).transpose(1, 2)
        codes, found = zip(*(level(z) for level in self.levels), strict=True)
        whole = torch.stack(codes).sum(0) / (3 if self.form == "mean" else 1)
        return self.decoder(whole.transpose(1, 2)), torch.stack(found).sum()


class Product(nn.Module):
    """A product quantizer whose two parts are equal, and so are its codebooks."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv1d(3, DIM, 1), nn.Linear(2 * DIM, 3)
        self.levels = nn.ModuleList(vqp.VectorQuantize(dim=DIM, codebook_size=CODES) for _ in range(2))
        self.levels[1].load_state_dict(self.levels[0].state_dict())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x).transpose(1, 2)
        codes, _, found = zip(*(level(z) for level in self.levels), strict=True)
        return self.decoder(torch.cat(codes, -1)).transpose(1, 2), torch.stack(found).sum()


@pytest.mark.parametrize(
    "build",
    [
        lambda: Additive(Mapped, "sum"),
        lambda: Additive(Mapped, "mean"),
        lambda: Additive(Chosen, "sum"),
        Product,
    ],
    ids=["own maps, sum", "own maps, mean", "own logits", "equal parts"],
)
def test_codebooks_that_each_add_a_part_are_no_residual(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    report = vqdoctor.examine(build(), torch.randn(64, 3, 10), losses=losses)
    assert len(report.layers) >= 2
    assert "VQ110" not in {f.code for f in report.findings}


def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
    out, vq = model(x)
    return vqdoctor.Losses(task=functional.mse_loss(out, x), vq=vq)


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (Model, "sound"),
        (Model, "no subtraction"),
        (Model, "mean"),
        (Model, "added"),
        (Model, "from z_e"),
        (Model, "side by side"),
        (Model, "stream"),
        (Flat, "sound"),
        (Flat, "no subtraction"),
        (Theirs, "sound"),
        (Theirs, "no subtraction"),
        (Theirs, "mean"),
    ],
)
def test_models(kind: type[nn.Module], form: str) -> None:
    torch.manual_seed(0)
    report = vqdoctor.examine(kind(form), torch.randn(64, 3, 10), losses=losses)
    accused = sorted(str(f.layer)[-1] for f in report.findings if f.code == "VQ110")
    assert accused == ["1", "2"] * (form in ("no subtraction", "mean", "added")) + ["2"] * (
        form == "from z_e"
    )
    words = {
        "no subtraction": "the sum of",
        "mean": "the mean of",
        "added": "plus the codes",
        "from z_e": "minus the codes of level 2 alone",
    }.get(form, "")
    assert all(words in f.message for f in report.findings if f.code == "VQ110")


def test_the_advice_subtracts() -> None:
    residual, z_q = torch.ones(2, DIM), torch.full((2, DIM), 0.25, requires_grad=True)
    left = run_advice("VQ110", residual=residual, z_q=z_q)["residual"]
    assert isinstance(left, torch.Tensor) and torch.equal(left, torch.full((2, DIM), 0.75))
