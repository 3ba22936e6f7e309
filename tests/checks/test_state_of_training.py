"""Faults in how a codebook is started, kept and fed: really trained models, each beside a one-setting twin.

Everything goes through a saved file and `examine`, bare and live, as a user would.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.core.settings import UserModel
from vqdoctor.engine import examine
from vqdoctor.models.task import Losses

CODES, DIM, POSITIONS, BATCH = 64, 8, 6, 24


class EmaVQ(nn.Module):
    """An EMA quantizer of [B, N, D] with the faults as switches."""

    def __init__(self, *, own_init: bool = False, flag_saved: bool = True, eval_writes: str = "") -> None:
        super().__init__()
        self.register_buffer("embedding", torch.randn(CODES, DIM))
        self.register_buffer("ema_cluster_size", torch.ones(CODES))
        self.register_buffer("ema_embedding_sum", self.embedding.clone())
        self.register_buffer("started", torch.tensor(not own_init), persistent=flag_saved)
        self.eval_writes = eval_writes

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        flat = z.detach().reshape(-1, DIM)
        if self.training and not self.started:
            self.embedding.copy_(flat[torch.randperm(len(flat))[:CODES]])
            self.ema_embedding_sum.copy_(self.embedding * self.ema_cluster_size[:, None])
            self.started.fill_(True)
        chosen = torch.cdist(flat, self.embedding).argmin(1)
        codes = self.embedding[chosen].view_as(z)
        votes = functional.one_hot(chosen, CODES).float()
        if self.training or self.eval_writes:
            self.ema_cluster_size.lerp_(votes.sum(0), 0.05)
        if self.training or self.eval_writes == "all":
            self.ema_embedding_sum.lerp_(votes.T @ flat, 0.05)
            self.embedding.copy_(self.ema_embedding_sum / (self.ema_cluster_size[:, None] + 1e-5))
        loss = functional.mse_loss(z, codes)
        return z + (codes - z).detach(), chosen.view(z.shape[:2]), loss


class GradientVQ(nn.Module):
    """The codebook is a parameter, started in the data's scale."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(CODES, DIM))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        chosen = torch.cdist(z.detach(), self.embedding.detach().expand(len(z), -1, -1)).argmin(-1)
        codes = self.embedding[chosen]
        loss = functional.mse_loss(codes, z.detach()) + 0.25 * functional.mse_loss(z, codes.detach())
        return z + (codes - z).detach(), chosen, loss


class Model(nn.Module):
    def __init__(self, vq: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Linear(DIM, DIM)
        self.vq = vq
        self.head = nn.Linear(DIM, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.vq(self.encoder(x))
        return self.head(z_q.mean(1)), loss.sum()


class Task:
    """Ten classes of sequences around ten centres; a fixed order of batches, sorted by class or not."""

    vq_weight = 0.25

    def __init__(self, vq: Any, *, sorted_by_class: bool = False, weight_decay: float = 0.0) -> None:
        self.vq, self.weight_decay = vq, weight_decay
        generator = torch.Generator().manual_seed(7)
        y = torch.arange(960) % 10
        centres = 2 * torch.randn(10, POSITIONS, DIM, generator=generator)
        x = centres[y] + torch.randn(960, POSITIONS, DIM, generator=generator)
        order = y.argsort(stable=True) if sorted_by_class else torch.randperm(960, generator=generator)
        self.x, self.y = x[order], y[order]

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return Model(self.vq())

    def batches(self, split: str) -> Iterator[Any]:
        if split == "stop":
            return iter(())
        rows = slice(None) if split == "train" else slice(0, 240)
        return zip(self.x[rows].split(BATCH), self.y[rows].split(BATCH), strict=True)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=self.weight_decay)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        logits, vq = model(batch[0])
        return Losses(task=functional.cross_entropy(logits, batch[1]), vq=vq, logits=logits, labels=batch[1])


def trained(task: Task, steps: int) -> dict[str, Any]:
    """Train in the task's own order, and return what a user would save."""
    model = task.model().train()
    optimizer = task.optimizer(model)
    done = 0
    while done < steps:
        for batch in task.batches("train"):
            losses = task.losses(model, batch)
            optimizer.zero_grad()
            (losses.task + task.vq_weight * losses.vq).backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def saved(path: Path, task: Task, steps: int) -> Path:
    torch.save(trained(task, steps), path / "model.pt")
    return path / "model.pt"


def live(path: Path, task: Task) -> Report:
    return examine(path, user_model=UserModel(task=task))


def found(report: Report, *codes: str) -> dict[str, Severity]:
    """The findings among `codes`; a crashed check or probe is a failure of the test."""
    assert [o for o in report.outcomes if o.status == "crashed"] == []
    return {f.code: f.severity for f in report.findings if f.code in codes}


OURS = ("VQ305", "VQ306", "VQ307", "VQ308", "VQ402", "VQ403")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("flag_saved", [False, True])
def test_a_flag_that_is_not_saved(tmp_path: Path, flag_saved: bool) -> None:
    task = Task(lambda: EmaVQ(own_init=True, flag_saved=flag_saved))
    report = live(saved(tmp_path, task, 120), task)
    assert found(report, *OURS) == ({} if flag_saved else {"VQ305": Severity.ERROR})
    assert found(examine(tmp_path / "model.pt"), *OURS) == {}  # an attribute of a class is in no file


@pytest.mark.parametrize("writes", ["all", "counts", ""])
def test_what_changes_in_eval_mode(tmp_path: Path, writes: str) -> None:
    task = Task(lambda: EmaVQ(own_init=True, eval_writes=writes))
    report = live(saved(tmp_path, task, 120), task)
    severity = {"all": Severity.ERROR, "counts": Severity.NOTE}
    assert found(report, *OURS) == ({"VQ307": severity[writes]} if writes else {})


@pytest.mark.parametrize("weight_decay", [1e-3, 0.0])
def test_weight_decay_in_adam(tmp_path: Path, weight_decay: float) -> None:
    task = Task(GradientVQ, weight_decay=weight_decay)
    path = saved(tmp_path, task, 1200)
    bare, whole = examine(path), live(path, task)
    assert set(found(bare, *OURS)) == set(found(whole, *OURS)) == ({"VQ308"} if weight_decay else set())


@pytest.mark.parametrize(("threshold", "expected"), [(4.0, {"VQ402": Severity.WARNING}), (0.2, {})])
def test_a_fixed_threshold_above_the_mean_count(
    tmp_path: Path, threshold: float, expected: dict[str, Severity]
) -> None:
    """144 vectors for 64 codes: 2.25 a code."""
    task = Task(lambda: VectorQuantize(dim=DIM, codebook_size=CODES, threshold_ema_dead_code=threshold))
    path = saved(tmp_path, task, 120)
    bare, whole = examine(path), live(path, task)
    assert found(bare, *OURS) == found(whole, *OURS) == expected
    if expected:
        (finding,) = (f for f in whole.findings if f.code == "VQ402")
        values = {m.name: m.value for m in finding.measurements}
        assert values["per_threshold"] == pytest.approx(144 / 64 / 4)


@pytest.mark.parametrize("sorted_by_class", [True, False])
def test_batches_in_the_order_of_the_classes(tmp_path: Path, sorted_by_class: bool) -> None:
    task = Task(lambda: EmaVQ(own_init=True), sorted_by_class=sorted_by_class)
    report = live(saved(tmp_path, task, 120), task)
    assert found(report, *OURS) == ({"VQ403": Severity.WARNING} if sorted_by_class else {})


def test_data_init_that_never_came(tmp_path: Path) -> None:
    """vector-quantize-pytorch initialises in eval mode too: a live look alone would find a fresh codebook."""
    task = Task(lambda: VectorQuantize(dim=DIM, codebook_size=CODES, kmeans_init=True))
    for report in (examine(saved(tmp_path, task, 0)), live(tmp_path / "model.pt", task)):
        assert report.findings[0].code == "VQ306"
        assert "are zero" in report.findings[0].message
        assert report.verdict == "at-risk"
    causes = {f.code: f.explained_by for f in report.findings}
    assert causes["VQ307"] == "VQ306:vq"
    assert found(live(saved(tmp_path, task, 60), task), *OURS) == {}


@pytest.mark.parametrize("vq", [EmaVQ, GradientVQ, lambda: VectorQuantize(dim=DIM, codebook_size=CODES)])
def test_a_file_saved_at_step_0_is_called_untrained_and_no_collapse(tmp_path: Path, vq: Any) -> None:
    task = Task(vq)
    for report in (examine(saved(tmp_path, task, 0)), live(tmp_path / "model.pt", task)):
        assert report.findings[0].code == "VQ306"
        assert report.verdict == "at-risk"
        assert not found(report, "VQ501", "VQ502")


def test_without_its_optimizer_a_file_of_step_0_is_told_by_what_a_training_pass_writes(
    tmp_path: Path,
) -> None:
    task = Task(EmaVQ)
    path = tmp_path / "weights.pt"
    torch.save(task.model().state_dict(), path)
    bare = examine(path)
    assert bare.verdict == "inconclusive"
    assert all(f.severity is Severity.NOTE for f in bare.findings)
    whole = live(path, task)
    assert whole.findings[0].code == "VQ306" and "never written" in whole.findings[0].message
    assert whole.verdict == "at-risk"


def test_a_few_steps_are_not_none(tmp_path: Path) -> None:
    task = Task(EmaVQ)
    assert "VQ306" not in found(live(saved(tmp_path, task, 3), task), *OURS)


def test_codes_rewritten_by_hand_disagree_with_their_sums(tmp_path: Path) -> None:
    task = Task(lambda: EmaVQ(own_init=True))
    whole = trained(task, 120)
    assert found(examine(saved(tmp_path, task, 120)), "VQ303") == {}
    whole["model"]["vq.embedding"] = whole["model"]["vq.embedding"].flip(0)
    torch.save(whole, tmp_path / "edited.pt")
    for report in (examine(tmp_path / "edited.pt"), live(tmp_path / "edited.pt", task)):
        assert found(report, "VQ303", *OURS) == {"VQ303": Severity.WARNING}
