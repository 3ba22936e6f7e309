"""VQ103 codebook-without-gradient just inside and just outside its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from judged import run_advice, says
from torch import nn
from torch.nn import functional

from vqdoctor import Losses
from vqdoctor.checkpoint import open_checkpoint, write_checkpoint
from vqdoctor.core.evidence import (
    CodebookGeometry,
    CodebookGradient,
    CodebookWriters,
    DataMatch,
    EmaState,
    Evidence,
    LossPath,
    OptimizerMemory,
    StartRows,
    TaskGradient,
)
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.examine import examine
from vqdoctor.engine.retrain import retrain
from vqdoctor.saved.record import RETRAINED

MEMORY = OptimizerMemory.healthy()
CODEBOOK = CodebookGradient.healthy()
EMA = EmaState.healthy()
UNLISTED = MEMORY.replace(codebook_listed=False, unlisted=True)
BEHIND = DataMatch.healthy(mean_gain=0.11)
CORNERS = CodebookGeometry.healthy(
    sample_size=256, dim=8, rms=1.0, norm_min=8**0.5, norm_median=8**0.5, norm_max=8**0.5, mean_norm=0.0,
    effective_rank=8.0,
)  # fmt: skip
STILL = CODEBOOK.replace(ema_owned=False, trainable=True)
MOVED = MEMORY.replace(codebook_listed=True, codebook_has_state=True)
NONE_BEHIND = TaskGradient.healthy(at_output=0.0, at_input=0.0, ratio=None, before=0.0)
REACHED = CODEBOOK.replace(ema_owned=False, trainable=True, gradient=0.3)
WRITERS = CodebookWriters.healthy(gradient=0.3, kept=1.0)
UNMOVED = MEMORY.replace(codebook_listed=True, codebook_has_state=False)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([CODEBOOK.replace(ema_owned=False)], "warning"),
        # frozen in this pass, but placed where its vectors are, or in front of vectors that stay
        ([CODEBOOK.replace(ema_owned=False), DataMatch.healthy(mean_gain=0.099)], "note"),
        ([CODEBOOK.replace(ema_owned=False), DataMatch.healthy(mean_gain=0.101)], "warning"),
        ([CODEBOOK.replace(ema_owned=False, fixed_input=True)], "note"),
        ([CODEBOOK.replace(ema_owned=False, trainable=True), DataMatch.healthy(mean_gain=0.0)], "error"),
        ([CODEBOOK.replace(ema_owned=False, trainable=True, gradient=1e-9)], "passes"),
        ([EMA], "passes"),
        ([MEMORY], "cannot judge"),
        ([MEMORY.replace(codebook_listed=True, codebook_has_state=True)], "passes"),
        ([UNMOVED, EMA.replace(never_written=True)], "error"),
        ([EMA.replace(never_written=True)], "cannot judge"),
        # not in the optimizer, under a name of its own: a parameter says a running model, and not a buffer
        ([UNLISTED, CODEBOOK.replace(ema_owned=False, trainable=True, gradient=0.3)], "error"),
        ([UNLISTED, CODEBOOK.replace(ema_owned=True, trainable=True, gradient=0.3)], "passes"),
        # the task's own optimizer does not hold it, unless the saved one remembers its gradients
        ([REACHED, WRITERS.replace(listed=False)], "error"),
        ([REACHED, WRITERS.replace(listed=True)], "passes"),
        ([REACHED, WRITERS.replace(listed=None)], "passes"),
        ([REACHED, WRITERS.replace(listed=False, replaced=True)], "passes"),  # VQ104 tells it
        ([REACHED, WRITERS.replace(listed=False), MEMORY.replace(codebook_has_state=True)], "passes"),
        ([REACHED.replace(ema_owned=True), WRITERS.replace(listed=False)], "passes"),
        ([UNLISTED, CODEBOOK.replace(ema_owned=False)], "warning"),
        ([UNLISTED], "cannot judge"),
        # an EMA that has ended, and codes that it has left near their vectors, or far from them
        ([CODEBOOK.replace(ema_owned=False), EMA, BEHIND], "note"),
        ([CODEBOOK.replace(ema_owned=False), EMA, BEHIND.replace(mean_gain=0.21)], "warning"),
        ([CODEBOOK.replace(ema_owned=False), EMA.replace(sums_disagreement=0.02), BEHIND], "warning"),
        ([CODEBOOK.replace(ema_owned=False), EMA.replace(sums_disagreement=None), BEHIND], "warning"),
        ([CODEBOOK.replace(ema_owned=False), BEHIND], "warning"),
        # bits that are stored are no codes; a table of codes of one length is one
        ([CODEBOOK.replace(ema_owned=False), CORNERS], "passes"),
        ([CODEBOOK.replace(ema_owned=False), CORNERS.replace(mean_norm=0.1)], "warning"),
        ([CODEBOOK.replace(ema_owned=False), CORNERS.replace(norm_max=3.0)], "warning"),
        ([CODEBOOK.replace(ema_owned=False), CORNERS.replace(sample_size=255)], "warning"),
        ([CODEBOOK.replace(ema_owned=False), CORNERS.replace(duplicate_rows=2)], "warning"),
        # logits choose codes wherever they lie, and bits stay, unless an optimizer could move them
        ([STILL, CORNERS], "error"),
        ([CODEBOOK.replace(ema_owned=False), StartRows.healthy(by_logits=True)], "passes"),
        ([CODEBOOK.replace(ema_owned=False), StartRows.healthy()], "warning"),
        ([STILL, StartRows.healthy(by_logits=True)], "error"),
        # the task alone trains the codes, and its gradient has died behind the layer
        ([STILL, MOVED, NONE_BEHIND], "cannot judge"),
        ([STILL, MOVED], "error"),
        ([STILL, MEMORY, NONE_BEHIND], "error"),
        ([STILL, MOVED, TaskGradient.healthy()], "error"),
        ([STILL, MOVED, NONE_BEHIND, LossPath.healthy()], "error"),
        # the losses reach the codebook, and the training that saved the file did not
        ([UNMOVED, REACHED], "error"),
        ([UNMOVED.replace(before_gradient=None), REACHED], "error"),
        ([UNMOVED.replace(before_gradient=0.0), REACHED], "passes"),
        ([UNMOVED.replace(sample_size=0), REACHED], "passes"),
        ([UNMOVED.replace(codebook_has_state=True), REACHED], "passes"),
        ([UNMOVED, REACHED.replace(ema_owned=True)], "passes"),
        ([UNMOVED.replace(codebook_has_state=None)], "cannot judge"),
        ([UNMOVED.replace(codebook_has_state=None), REACHED], "passes"),
        ([UNMOVED.replace(codebook_has_state=None), REACHED.replace(gradient=0.0)], "error"),
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


class Model(nn.Module):
    """An autoencoder of rows of 8 numbers around 16 codes of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        self.vq = Lookup()
        self.decoder = nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss = self.vq(self.encoder(x))
        return self.decoder(z_q), loss


class Lookup(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 4)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q = self.embedding(torch.cdist(z, self.embedding.weight.detach()).argmin(-1))
        loss = functional.mse_loss(z_q, z.detach()) + 0.25 * functional.mse_loss(z, z_q.detach())
        return z + (z_q - z).detach(), loss


class Task:
    vq_weight = 1.0

    def model(self) -> Model:
        return Model()

    def batches(self, split: str) -> list[torch.Tensor]:
        return list(torch.randn(128, 8, generator=torch.Generator().manual_seed(0)).split(32))

    def losses(self, model: nn.Module, x: torch.Tensor) -> Losses:
        out, loss = model(x)
        return Losses(task=functional.mse_loss(out, x), vq=loss)


@pytest.mark.parametrize("how", ["a number", "weight 0", "a tensor", "the decoder alone"])
def test_a_file_tells_what_the_losses_of_the_task_do_not(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, task = Model(), Task()
    if how == "the decoder alone":
        model.encoder.requires_grad_(False)
        model.vq.requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(3):
        for x in task.batches("train"):
            losses = task.losses(model, x)
            assert losses.vq is not None
            vq = {"a number": losses.vq.item(), "weight 0": 0.0 * losses.vq}.get(how, losses.vq)
            optimizer.zero_grad()
            (losses.task + vq).backward()
            optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "model.pt")
    user_model: Any = UserModel(task=task)
    report = examine(
        tmp_path / "model.pt", user_model=user_model, settings=Settings(select=("VQ103", "VQ201"))
    )
    lost = how in ("a number", "weight 0")
    assert [finding.code for finding in report.findings] == ["VQ103"] * lost
    if lost:
        assert "the training that saved this file gave it none" in report.findings[0].message


def test_a_retraining_in_which_an_ema_led_the_codes_is_not_accused_of_losing_their_gradient(
    tmp_path: Path,
) -> None:
    """The optimizer of its file may remember none; a file without that record is accused as before."""
    torch.manual_seed(0)
    model, task = Model(), Task()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for x in task.batches("train"):
        losses = task.losses(model, x)
        optimizer.zero_grad()
        losses.task.backward()
        optimizer.step()
    path, output, again = (tmp_path / f"{name}.pt" for name in ("model", "out", "again"))
    state = optimizer.state_dict()
    zeros = {"step": torch.tensor(4.0), "exp_avg": torch.zeros(16, 4), "exp_avg_sq": torch.zeros(16, 4)}
    of_codes = [p for p, _ in model.named_parameters()].index("vq.embedding.weight")
    state["state"][of_codes] = zeros
    torch.save({"model": model.state_dict(), "optimizer": state}, path)
    user_model: Any = UserModel(task=task)
    settings = Settings(epochs=1, only=("data-init",), keep_worse=True)
    retrain(path, output, user_model=user_model, settings=settings)
    (*_, note) = open_checkpoint(output).history
    assert note[RETRAINED]["codes_by_ema"] == ["vq"]
    for told, accused in ((note[RETRAINED], False), ({"epochs": 1}, True)):
        write_checkpoint(open_checkpoint(path), again, {}, note={RETRAINED: told}, overwrite=True)
        for given in (user_model, UserModel()):
            report = examine(again, user_model=given, settings=Settings(select=("VQ103",)))
            assert bool(report.findings) == accused


@pytest.mark.parametrize(("held", "told"), [("encoder decoder", True), ("decoder", False)])
def test_a_task_that_trains_the_decoder_alone_leaves_the_codes_on_purpose(
    held: str, told: bool, tmp_path: Path
) -> None:
    class Stage(Task):
        def optimizer(self, model: Model) -> torch.optim.Optimizer:
            parts = [model.get_submodule(name) for name in held.split()]
            return torch.optim.Adam([p for part in parts for p in part.parameters()], lr=1e-3)

    torch.manual_seed(0)
    torch.save(Model().state_dict(), tmp_path / "model.pt")
    user_model: Any = UserModel(task=Stage())
    report = examine(tmp_path / "model.pt", user_model=user_model, settings=Settings(select=("VQ103",)))
    assert [finding.code for finding in report.findings] == ["VQ103"] * told
