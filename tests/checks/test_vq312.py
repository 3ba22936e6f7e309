"""VQ312: hand-made evidence, and a small model whose VQ layer runs more than once in a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from judged import says
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vqdoctor.core.evidence import EmaAdvances
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine import examine
from vqdoctor.models.task import Losses
from vqdoctor.reference.quantizer import VectorQuantizerEMA2D

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("times", "expected"), [(1, "passes"), (2, "warning"), (5, "warning")])
def test_only_more_than_one_update_by_the_same_vectors_is_found(times: int, expected: str) -> None:
    assert says("VQ312", EmaAdvances.healthy(times=times)) == expected


@pytest.mark.parametrize(
    ("applied", "expected"),
    [
        (1.0, "passes"),
        (1.91, "warning"),
        (1.89, "passes"),
        (2.0, "warning"),
        (3.0, "warning"),
        (None, "passes"),
    ],
)
def test_a_power_of_the_layers_decay_in_one_call(applied: float | None, expected: str) -> None:
    assert says("VQ312", EmaAdvances.healthy(applied=applied)) == expected


class Twice(VectorQuantizerEMA2D):
    """A layer whose one call averages twice."""

    def average(self, vectors: torch.Tensor, indices: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        super().average(vectors, indices, counts)
        return super().average(vectors, indices, counts)


class HeavySums(VectorQuantizerEMA2D):
    """A layer that weighs new vectors in the sums by the decay, and their number by 1 less the decay."""

    def average(self, vectors: torch.Tensor, indices: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        before = self.sums.clone()
        smoothed = super().average(vectors, indices, counts)
        batch = (self.sums - self.decay * before) / (1 - self.decay)
        self.sums.copy_(self.decay * (before + batch))
        return smoothed


class Warm(VectorQuantizerEMA2D):
    """A layer whose decay warms up, by a number of passes that no file keeps: its first one is 0.9^22."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.passes = 0

    def average(self, vectors: torch.Tensor, indices: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        full, self.passes = self.decay, self.passes + 1
        self.decay = min(full, full**22 * self.passes)
        divided = super().average(vectors, indices, counts)
        self.decay = full
        return divided


class Kept(VectorQuantizerEMA2D):
    """A layer that decays the `kept` ones of its EMAs by 1, and shows its codes by its output alone."""

    kept: tuple[str, ...] = ()

    def forward(self, z_e: torch.Tensor) -> Any:
        quantized = super().forward(z_e)
        return quantized._replace(indices=None)

    def average(self, vectors: torch.Tensor, indices: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        emas = {"counts": self.ema_cluster_size, "sums": self.sums}
        lost = {name: (1 - self.decay) * emas[name] for name in self.kept}
        super().average(vectors, indices, counts)
        for name, share in lost.items():
            emas[name].add_(share)
        return self.ema_cluster_size.unsqueeze(1).clamp_min(1e-5)


class CountsKept(Kept):
    kept = ("counts",)


class SumsKept(Kept):
    kept = ("sums",)


class BothKept(Kept):
    kept = ("counts", "sums")


LAYERS = {
    "twice in a call": Twice,
    "a decay that warms up": Warm,
    "heavy sums": HeavySums,
    "neither kept": Kept,
    "counts kept": CountsKept,
    "sums kept": SumsKept,
    "both kept": BothKept,
}


class Model(nn.Module):
    """A tokenizer of [B, 1, 8, 8] whose layer runs in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.centred = False
        self.encoder = nn.Conv2d(1, 8, 2, 2)
        self.vq = LAYERS.get(how, VectorQuantizerEMA2D)(16, 8, decay=0.9)
        self.decoder = nn.ConvTranspose2d(8, 1, 2, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_e = self.encoder(x)
        if self.centred:
            z_e = z_e - z_e.mean((0, 2, 3), keepdim=True)
        if self.how == "a second pass":
            self.vq(z_e)
        if self.how == "another scale":
            self.vq(z_e[:, :, ::2, ::2])
        if self.how == "checkpointing":
            z_q, _, loss, _ = checkpoint(self.vq, z_e, use_reentrant=False)
        else:
            z_q, _, loss, _ = self.vq(z_e)
        return self.decoder(z_q), loss


class Task:
    vq_weight = 0.25

    def __init__(self, how: str) -> None:
        self.how = how

    def model(self) -> Model:
        return Model(self.how)

    def batches(self, split: str) -> list[torch.Tensor]:
        return list(torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).split(32))

    def losses(self, model: nn.Module, x: torch.Tensor) -> Losses:
        out, loss = model(x)
        return Losses(task=functional.mse_loss(out, x), vq=loss)


@pytest.mark.parametrize(
    ("how", "times"),
    [("once", 1), ("another scale", 1), ("a second pass", 2), ("checkpointing", 2)],
)
def test_a_layer_that_runs_again_on_the_same_vectors_is_found(how: str, times: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save({"model": Model(how).state_dict()}, tmp_path / "model.pt")
    user_model: Any = UserModel(task=Task(how))
    settings = Settings(select=("VQ312",))
    report = examine(tmp_path / "model.pt", user_model=user_model, settings=settings)
    (found,) = (evidence for evidence in report.evidence if isinstance(evidence, EmaAdvances))
    assert found.times == times
    assert [finding.code for finding in report.findings] == ["VQ312"] * (times > 1)


@pytest.mark.parametrize(
    ("how", "applied"),
    [("once", 1.0), ("twice in a call", 2.0), ("another scale", None), ("a decay that warms up", None)],
)
def test_the_decay_that_one_call_applies(how: str, applied: float | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save({"model": Model(how).state_dict()}, tmp_path / "model.pt")
    user_model: Any = UserModel(task=Task(how))
    settings = Settings(select=("VQ312",))
    report = examine(tmp_path / "model.pt", user_model=user_model, settings=settings)
    (found,) = (evidence for evidence in report.evidence if isinstance(evidence, EmaAdvances))
    assert found.times == 1
    assert found.applied == (None if applied is None else pytest.approx(applied, abs=0.01))
    assert [finding.code for finding in report.findings] == ["VQ312"] * (applied == 2.0)


@pytest.mark.parametrize(("how", "ratio"), [("once", 1.0), ("heavy sums", 9.0)])
@pytest.mark.parametrize("spread", [1.0, 0.0], ids=["many codes", "one code"])
def test_the_weight_of_new_vectors_in_sums_and_counts(
    how: str, ratio: float, spread: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Model(how)
    with torch.no_grad():
        model.encoder.weight.mul_(spread)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pt")
    user_model: Any = UserModel(task=Task(how))
    report = examine(
        tmp_path / "model.pt", user_model=user_model, settings=Settings(select=("VQ309", "VQ312"))
    )
    (found,) = (evidence for evidence in report.evidence if isinstance(evidence, EmaAdvances))
    assert found.sums_over_counts == pytest.approx(ratio, rel=1e-3)
    assert ("VQ309" in {finding.code for finding in report.findings}) is (ratio > 1)


class Centred(Task):
    """The task of a model whose vectors add up to zero, as behind a batch norm."""

    def model(self) -> Model:
        model = super().model()
        model.centred = True
        return model


@pytest.mark.parametrize(("how", "ratio"), [("once", 1.0), ("heavy sums", 9.0)])
def test_the_weight_shows_where_one_code_has_vectors_that_cancel(
    how: str, ratio: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Model(how)
    with torch.no_grad():
        model.vq.embedding.mul_(50.0)[0] = 0.0
        model.vq.ema_embedding_sum.copy_(model.vq.embedding)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pt")
    user_model: Any = UserModel(task=Centred(how))
    report = examine(tmp_path / "model.pt", user_model=user_model, settings=Settings(select=("VQ309",)))
    (found,) = (evidence for evidence in report.evidence if isinstance(evidence, EmaAdvances))
    assert found.sums_over_counts == pytest.approx(ratio, rel=1e-3)
    assert ("VQ309" in {finding.code for finding in report.findings}) is (ratio > 1)


@pytest.mark.parametrize(
    ("how", "sums", "counts"),
    [
        ("neither kept", 0.9, 0.9),
        ("counts kept", 0.9, 1.0),
        ("sums kept", 1.0, 0.9),
        ("both kept", 1.0, 1.0),
    ],
)
def test_what_a_pass_keeps_of_sums_and_counts(how: str, sums: float, counts: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, task = Model(how), Task(how)
    with torch.no_grad():
        model.encoder.weight.mul_(4.0)
        for times in (-1.0, 0.5, 2.0):  # batches of other codes: else the counts are those of every batch
            model(times * task.batches("train")[0])
    torch.save({"model": model.state_dict()}, tmp_path / "model.pt")
    user_model: Any = UserModel(task=task)
    report = examine(
        tmp_path / "model.pt", user_model=user_model, settings=Settings(select=("VQ309", "VQ312"))
    )
    (found,) = (evidence for evidence in report.evidence if isinstance(evidence, EmaAdvances))
    assert (found.sums_kept, found.counts_kept) == pytest.approx((sums, counts), abs=1e-4)
    assert ["VQ309"] * (sums != counts) == [f.code for f in report.findings if f.code == "VQ309"]
    if sums != counts:
        assert ("shorter" if sums < counts else "longer") in report.findings[0].message
