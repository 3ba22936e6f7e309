"""Codes in train and in eval mode, in really trained models."""

from __future__ import annotations

import pytest
import torch
from live_models import live, trained
from small_training import Digits
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import TrainEvalGap
from vqdoctor.probes.model import train_eval_gap


class Noise(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z + 3 * torch.randn_like(z) if self.training else z


class With(Digits):
    """The reference model with one more module between its encoder and its VQ layer."""

    def __init__(self, more: nn.Module) -> None:
        super().__init__(vq_weight=0.1, decay=0.9)
        self.more = more

    def model(self) -> nn.Module:
        model = super().model()
        model.encoder.add_module("more", self.more)
        return model


@pytest.mark.parametrize(
    ("more", "epochs", "fires", "noise"),
    [
        (nn.BatchNorm2d(8, momentum=1e-4), 4, True, (0.0, 0.0)),
        (nn.BatchNorm2d(8), 20, False, (0.0, 0.0)),
        (Noise(), 4, True, (0.6, 1.0)),
        (nn.Dropout(0.2), 20, False, (0.17, 0.24)),
        (nn.Identity(), 4, False, (0.0, 0.0)),
    ],
)
def test_stale_statistics_and_strong_noise_are_told_from_health(
    more: nn.Module, epochs: int, fires: bool, noise: tuple[float, float]
) -> None:
    task = With(more)
    evidence, findings = live(trained(task, epochs), task, (train_eval_gap,), "VQ606")
    gap = evidence["train-eval-gap"]
    assert isinstance(gap, TrainEvalGap) and gap.noise is not None and noise[0] <= gap.noise <= noise[1]
    assert (set(findings) == {"VQ606"}) is fires


class Soft(nn.Module):
    """Image tokens by Gumbel samples over a few positions, and argmax in eval mode."""

    def __init__(self, tau: float, *, hard: bool, silent: bool = False) -> None:
        super().__init__()
        self.logits, self.embedding = nn.Linear(12, 16), nn.Embedding(16, 8)
        self.tau, self.hard, self.silent = tau, hard, silent

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits = self.logits(x)
        weights = functional.one_hot(logits.argmax(-1), 16).float()
        if self.training:
            weights = functional.gumbel_softmax(logits, self.tau, hard=self.hard)
        return weights @ self.embedding.weight, None if self.silent else logits.argmax(-1)


class Near(nn.Module):
    """The nearest code, and in train mode z_e itself, noise around it, or a mixture of codes.

    Args:
        form: what it puts out in train mode: "bypass" for z_e in place of some codes, "z_e" for all, "noise",
            a "mixture", or one that is "near" z_e; "dropped" for dropout before the lookup; or "around" where
            the model goes around it in train mode, and "never" where it does so in both.
        silent: whether it gives no indices.
    """

    def __init__(self, form: str, *, silent: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 8)
        self.form, self.silent = form, silent
        self.dropout = nn.Dropout(0.6 if form == "dropped" else 0.0)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        z = self.dropout(z)
        distances = torch.cdist(z, self.embedding.weight)
        chosen = distances.argmin(-1)
        codes = self.embedding(chosen)
        z_q = z + (codes - z).detach()
        if self.training and self.form == "bypass":
            z_q = torch.where(torch.rand(len(z), 1, 1) < 0.8, z, z_q)
        elif self.training and self.form == "noise":
            noise = functional.normalize(torch.randn_like(z), dim=-1)
            z_q = z + (z - codes).norm(dim=-1, keepdim=True) * noise
        elif self.training and self.form == "z_e":
            z_q = codes.lerp(z, 1.0)
        elif self.training and self.form in ("mixture", "near"):
            width = 20 if self.form == "mixture" else 2
            z_q = (-distances / width).softmax(-1) @ self.embedding.weight
        return z_q, None if self.silent else chosen


class Tokens(nn.Module):
    def __init__(self, quantizer: nn.Module, dim: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(10, 48), nn.ReLU(), nn.Linear(48, dim))
        self.quantizer = quantizer
        self.decoder = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z_q = self.quantizer(z_e := self.encoder(x))[0]
        form = getattr(self.quantizer, "form", "")
        around = form == "never" or (self.training and form == "around")
        return self.decoder(z_e if around else z_q)


def token_losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
    return vqdoctor.Losses(task=functional.mse_loss(model(x), x), vq=None)


def told_of_modes(quantizer: nn.Module, dim: int) -> tuple[TrainEvalGap | None, list[str]]:
    """Train a model of 12 kinds of tokens; return the evidence, and what VQ606 says."""
    model = Tokens(quantizer, dim)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    centres = torch.randn(12, 10)
    x = centres[torch.randint(12, (256, 4))] + 0.1 * torch.randn(256, 4, 10)
    for _ in range(200):
        optimizer.zero_grad()
        token_losses(model, x).task.backward()
        optimizer.step()
    report = vqdoctor.examine(model, x[:128], losses=token_losses)
    gap = next((e for e in report.evidence if isinstance(e, TrainEvalGap)), None)
    return gap, [f.message for f in report.findings if f.code == "VQ606"]


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize(
    ("tau", "hard", "fires"), [(20.0, False, True), (1.0, True, False), (0.1, False, False)]
)
def test_soft_samples_that_the_decoder_learned_from(
    tau: float, hard: bool, fires: bool, silent: bool
) -> None:
    torch.manual_seed(0)
    _, said = told_of_modes(Soft(tau, hard=hard, silent=silent), 12)
    assert bool(said) is fires
    assert all("puts out vectors" in message for message in said)


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("bypass", None),
        ("noise", None),
        ("mixture", "puts out vectors"),
        ("near", "puts out vectors"),
        ("z_e", "never a code"),
        ("around", "never a code"),
    ],
)
def test_z_e_in_place_of_its_code_is_no_mixture_of_codes(form: str, words: str | None, silent: bool) -> None:
    """Passing z_e on at random (Mimi) or with noise of the error's size (NSVQ) is a way to train."""
    torch.manual_seed(0)
    gap, said = told_of_modes(Near(form, silent=silent), 8)
    assert gap is None if silent and words is None else gap is not None
    assert gap is None or gap.eval_loss > 1.5 * gap.train_loss
    assert [words is not None and words in message for message in said] == [True] * (words is not None)


def test_codes_that_the_decoder_gets_in_no_mode_are_no_gap_between_modes() -> None:
    torch.manual_seed(0)
    gap, _ = told_of_modes(Near("never"), 8)
    assert gap is not None and not gap.never_codes


@pytest.mark.parametrize("silent", [False, True])
def test_dropout_in_the_layer_itself_is_noise_before_its_lookup(silent: bool) -> None:
    torch.manual_seed(0)
    gap, said = told_of_modes(Near("dropped", silent=silent), 8)
    assert gap is not None and gap.noise == 0.6
    assert len(said) == 1 and "noise or dropout" in said[0]
