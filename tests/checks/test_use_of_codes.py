"""Faults in what codes are used for, and in how they move: really built models, each beside a twin.

Everything goes through a saved file and `examine`, as a user would.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.core.levels import Confidence, Severity
from vqdoctor.core.report import Report
from vqdoctor.engine import Settings, UserModel, examine
from vqdoctor.models.task import Losses
from vqdoctor.reference.recipes import HEALTHY, PLAIN
from vqdoctor.reference.train import encode, train
from vqdoctor.vq import codebook as arrays
from vqdoctor.vq.kmeans import kmeans
from vqdoctor.vq.revival import revive

DIM, POSITIONS, BATCH = 8, 16, 24
OURS = ("VQ504", "VQ505", "VQ506", "VQ507", "VQ604", "VQ605")
DIGITS = Path(__file__).parents[2] / "sample_checkpoints" / "digits.npz"


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    yield
    torch.set_num_threads(threads)


class Codebook(nn.Module):
    """The EMA codebook of the encodec family: expiry first, then the update. `whole` mends the expiry."""

    def __init__(self, codes: int, *, threshold: float = 0.0, whole: bool = True, at: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("inited", torch.ones(1))
        self.register_buffer("cluster_size", torch.ones(codes))
        self.register_buffer("embed", torch.randn(codes, DIM) + at)
        self.register_buffer("embed_avg", self.embed.clone())
        self.threshold, self.whole = threshold, whole

    def expire(self, x: torch.Tensor) -> None:
        dead = self.cluster_size < self.threshold
        if dead.any():
            sampled = x[torch.randint(len(x), (len(dead),))]
            self.embed.data.copy_(torch.where(dead[:, None], sampled, self.embed))
            if self.whole:
                self.cluster_size.data.copy_(torch.where(dead, self.threshold, self.cluster_size))
                self.embed_avg.data.copy_(
                    torch.where(dead[:, None], sampled * self.threshold, self.embed_avg)
                )

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = z.detach().reshape(-1, DIM)
        chosen = torch.cdist(x, self.embed).argmin(1)
        codes = self.embed[chosen].view_as(z)
        if self.training:
            self.expire(x)
            votes = functional.one_hot(chosen, len(self.embed)).float()
            self.cluster_size.data.lerp_(votes.sum(0), 0.05)
            self.embed_avg.data.lerp_(votes.T @ x, 0.05)
            total = self.cluster_size.sum()
            smooth = (self.cluster_size + 1e-5) / (total + len(self.embed) * 1e-5) * total
            self.embed.data.copy_(self.embed_avg / smooth[:, None])
        return codes, chosen.view(z.shape[:2])


class Layer(nn.Module):
    def __init__(self, codes: int, **how: Any) -> None:
        super().__init__()
        self._codebook = Codebook(codes, **how)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        codes, chosen = self._codebook(z)
        return z + (codes - z).detach(), chosen, functional.mse_loss(z, codes)


class Levels(nn.Module):
    """Residual levels; in training a random number of them, drawn below `stop`."""

    def __init__(self, layers: list[Layer], stop: int | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.stop = len(layers) + 1 if stop is None else stop

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
        keep = random.randrange(1, self.stop) if self.training else len(self.layers)
        rest, out, loss = z, torch.zeros_like(z), torch.zeros(())
        for layer in self.layers[:keep]:
            codes, _, level_loss = layer(rest)
            rest, out, loss = rest - codes.detach(), out + codes, loss + level_loss
        return z + (out - z).detach(), None, loss


class Model(nn.Module):
    def __init__(self, vq: nn.Module, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = encoder or nn.Linear(DIM, DIM)
        self.vq = vq
        self.head = nn.Linear(DIM, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.vq(self.encoder(x))
        return self.head(z_q.mean(1)), loss.sum()


class Task:
    """Ten classes of sequences; each position is around one of 30 places, which the class makes likelier."""

    vq_weight = 0.25

    def __init__(self, build: Callable[[], nn.Module], x: torch.Tensor | None = None) -> None:
        generator = torch.Generator().manual_seed(7)
        self.build = build
        self.y = torch.arange(480) % 10
        places = 2 * torch.randn(30, DIM, generator=generator)
        favour = torch.randint(3, (480, POSITIONS), generator=generator) + 3 * self.y[:, None]
        anywhere = torch.randint(30, (480, POSITIONS), generator=generator)
        place = torch.where(torch.rand(480, POSITIONS, generator=generator) < 0.7, favour, anywhere)
        noise = torch.randn(480, POSITIONS, DIM, generator=generator)
        self.x = places[place] + 0.3 * noise if x is None else x

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.build()

    def batches(self, split: str) -> Iterator[Any]:
        if split == "stop":
            return iter(())
        rows = slice(0, 480 if split == "train" else 240)
        return zip(self.x[rows].split(BATCH), self.y[rows].split(BATCH), strict=True)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        logits, vq = model(batch[0])
        return Losses(task=functional.cross_entropy(logits, batch[1]), vq=vq, logits=logits, labels=batch[1])


def trained(task: Task, steps: int = 120, learning_rate: float = 3e-3) -> nn.Module:
    model = task.model().train()
    adam = torch.optim.Adam(model.parameters(), lr=learning_rate)
    batches = [batch for _ in range(steps // 20 + 1) for batch in task.batches("train")]
    for batch in batches[:steps]:
        losses = task.losses(model, batch)
        adam.zero_grad()
        (losses.task + task.vq_weight * losses.vq).backward()
        adam.step()
    return model


def examined(path: Path, task: Task, model: nn.Module, probe_steps: int = 0, **more: Any) -> Report:
    torch.save({"model": model.state_dict(), **more}, path / "model.pt")
    report = examine(
        path / "model.pt", user_model=UserModel(task=task), settings=Settings(probe_steps=probe_steps)
    )
    assert [o for o in report.outcomes if o.status == "crashed"] == []
    return report


def found(report: Report, *codes: str) -> dict[str, Severity]:
    return {f.code: f.severity for f in report.findings if f.code in (codes or OURS)}


def patient(path: Path, build: Callable[[], nn.Module], steps: int = 120, **more: Any) -> Report:
    task = Task(build, more.pop("x", None))
    return examined(path, task, trained(task, steps), **more)


# VQ505


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"threshold": 2.0, "whole": False}, {"VQ505"}),
        ({"threshold": 2.0, "whole": True}, set()),
        ({"threshold": 0.0}, set()),
    ],
)
def test_a_revival_that_the_ema_undoes(tmp_path: Path, how: dict[str, Any], expected: set[str]) -> None:
    report = patient(tmp_path, lambda: Model(Layer(256, **how)))
    assert set(found(report, "VQ505")) == expected
    if expected:
        (finding,) = (f for f in report.findings if f.code == "VQ505")
        assert finding.confidence is Confidence.HIGH
        assert finding.measurements[0].value > 0.5
        bare = examine(tmp_path / "model.pt")
        assert found(bare, "VQ505") == {}, "nothing in the file says that codes were to be replaced"


def test_a_recorded_threshold_makes_a_bare_file_suspect(tmp_path: Path) -> None:
    for whole, expected in ((False, {"VQ505": Severity.WARNING}), (True, {})):
        model = trained(Task(lambda whole=whole: Model(Layer(256, threshold=2.0, whole=whole))))
        saved = {"model": model.state_dict(), "config": {"threshold_ema_dead_code": 2}}
        torch.save(saved, tmp_path / "model.pt")
        report = examine(tmp_path / "model.pt")
        assert found(report, "VQ505") == expected
        guesses = [f for f in report.findings if f.code == "VQ505"]
        assert all(f.confidence is Confidence.LOW and "--data" in f.decide_with for f in guesses)


@pytest.mark.parametrize("threshold", [0, 2])
def test_the_library_revives_for_good(tmp_path: Path, threshold: int) -> None:
    def build() -> nn.Module:
        return Model(VectorQuantize(DIM, 256, decay=0.95, threshold_ema_dead_code=threshold))

    assert found(patient(tmp_path, build, probe_steps=12), "VQ505") == {}


@pytest.mark.parametrize("with_sums", [True, False])
def test_a_training_loop_that_revives_the_codes_alone(tmp_path: Path, with_sums: bool) -> None:
    data = dict(np.load(DIGITS))
    result = train(replace(PLAIN, epochs=3), data, 0)
    vq = result.model.vq
    assert vq is not None
    images, _ = result.task.data["train"]
    with torch.no_grad():
        usage = torch.bincount(result.model(images)["indices"].flatten(), minlength=256)
    revive(
        vq.codebook if with_sums else arrays.Codebook(codes=vq.embedding),
        usage=usage.double(),
        vectors=encode(result.model, images),
        generator=torch.Generator().manual_seed(0),
    )
    torch.save(dict(result.checkpoint), tmp_path / "model.pt")
    expected = {} if with_sums else {"VQ505": Severity.WARNING}
    for given in (None, DIGITS):
        assert found(examine(tmp_path / "model.pt", data=given), "VQ505") == expected


# VQ506


def levels(stop: int | None = None, last: dict[str, Any] | None = None, codes: int = 16) -> nn.Module:
    return Model(Levels([Layer(codes), Layer(codes), Layer(codes, **(last or {}))], stop))


@pytest.mark.parametrize("stop", [3, 4])
def test_a_last_level_that_is_never_drawn(tmp_path: Path, stop: int) -> None:
    report = patient(tmp_path, lambda: levels(stop))
    at = [f.layer for f in report.findings if f.code == "VQ506"]
    assert at == (["vq.layers.2"] if stop == 3 else [])
    assert len(report.layers) == 3
    bare = examine(tmp_path / "model.pt")
    assert [f.layer for f in bare.findings if f.code == "VQ506"] == at


def test_a_file_of_the_first_moment_accuses_no_level(tmp_path: Path) -> None:
    assert found(patient(tmp_path, levels, steps=0), "VQ506") == {}


def test_a_level_that_gives_one_code_is_a_fault_where_something_is_left(tmp_path: Path) -> None:
    report = patient(tmp_path, lambda: levels(last={"at": 60.0}))
    assert [(f.layer, f.severity >= Severity.WARNING) for f in report.findings if f.code == "VQ506"] == [
        ("vq.layers.2", True)
    ]


def test_a_level_too_many_is_a_note(tmp_path: Path) -> None:
    """Twelve points and 64 codes a level that lie on them: the first leaves nothing to the second."""
    points = torch.randn(12, DIM, generator=torch.Generator().manual_seed(3))
    x = points[torch.randint(12, (480, POSITIONS), generator=torch.Generator().manual_seed(4))]

    def build() -> nn.Module:
        model = Model(Levels([Layer(64), Layer(64)]), nn.Identity())
        first, second = (layer._codebook for layer in model.vq.layers)
        first.embed[:12] = points
        second.embed[0] = 0.0
        for book in (first, second):
            book.embed_avg.copy_(book.embed)
        return model

    report = patient(tmp_path, build, x=x)
    assert found(report, "VQ506") == {"VQ506": Severity.NOTE}


# VQ507


class DeadEnd(nn.Module):
    """An encoder that ends in a ReLU whose inputs are all negative."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.linear = nn.Linear(DIM, DIM)
        nn.init.constant_(self.linear.bias, bias)
        self.offset = nn.Parameter(torch.ones(DIM))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x)) + self.offset


@pytest.mark.parametrize(("bias", "expected"), [(-60.0, {"VQ507": Severity.ERROR}), (0.0, {})])
def test_a_dead_encoder(tmp_path: Path, bias: float, expected: dict[str, Severity]) -> None:
    report = patient(tmp_path, lambda: Model(Layer(64), DeadEnd(bias)))
    assert found(report, "VQ507") == expected
    if expected:
        collapse = next(f for f in report.findings if f.code == "VQ501")
        assert collapse.explained_by == "VQ507:vq"


def tone(noise: float) -> torch.Tensor:
    time = torch.arange(POSITIONS * DIM) / 16
    phase = torch.rand(480, 1, generator=torch.Generator().manual_seed(5))
    wave = torch.sin(2 * math.pi * (time + phase))
    hiss = torch.randn(wave.shape, generator=torch.Generator().manual_seed(6))
    return (wave + noise * hiss).view(480, POSITIONS, DIM)


@pytest.mark.parametrize("x", [torch.zeros(480, POSITIONS, DIM), tone(0.0), tone(0.03)])
def test_silence_and_a_tone_are_the_datas_fault(tmp_path: Path, x: torch.Tensor) -> None:
    """The model is one that uses its codes on the data that it was trained on."""
    task = Task(lambda: Model(VectorQuantize(DIM, 64, decay=0.95, kmeans_init=True)))
    model = trained(task)
    assert found(examined(tmp_path, task, model), "VQ501", "VQ507") == {}
    task.x = x
    report = examined(tmp_path, task, model)
    assert found(report, "VQ507") == {"VQ507": Severity.NOTE}
    assert "VQ501" in found(report, "VQ501")


# VQ604


class OverTime(nn.Module):
    """A linear encoder that may average over time, or add a large position embedding."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.linear = nn.Linear(DIM, DIM)
        self.how = how
        self.positions = nn.Parameter(30 * torch.randn(POSITIONS, DIM))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.linear(x)
        if self.how == "average":
            return z.mean(1, keepdim=True).expand_as(z)
        return z + self.positions if self.how == "position" else z + 0 * self.positions


@pytest.mark.parametrize(
    ("how", "expected"), [("average", {"VQ604"}), ("position", {"VQ604"}), ("each", set())]
)
def test_a_frozen_sequence(tmp_path: Path, how: str, expected: set[str]) -> None:
    def build() -> nn.Module:
        codes = 12 if how == "position" else 64
        return Model(VectorQuantize(DIM, codes, decay=0.9, kmeans_init=True), OverTime(how))

    report = patient(tmp_path, build)
    assert set(found(report, "VQ604")) == expected
    if how == "average":
        (finding,) = (f for f in report.findings if f.code == "VQ604")
        assert {m.name: m.value for m in finding.measurements}["dwell"] == POSITIONS


def test_an_image_is_no_sequence(tmp_path: Path) -> None:
    result = train(replace(HEALTHY, epochs=1), dict(np.load(DIGITS)), 0)
    torch.save(dict(result.checkpoint), tmp_path / "model.pt")
    report = examine(tmp_path / "model.pt", data=DIGITS)
    (outcome,) = (o for o in report.outcomes if o.code == "VQ604")
    assert outcome.status == "skipped"
    assert "sequence" in (outcome.reason or "")


# VQ605 and VQ504


def quantized_afterwards(path: Path, codes: int) -> Report:
    """Train without quantizing, then put k-means codes between the halves."""

    class Open(nn.Module):
        def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
            return z, None, torch.zeros((), requires_grad=True)

    task = Task(lambda: Model(Open()))
    whole = trained(task, 400, 1e-2)
    task.build = lambda: Model(Layer(codes))
    model = task.model()
    model.encoder, model.head = whole.encoder, whole.head
    with torch.no_grad():
        vectors = model.encoder(task.x).reshape(-1, DIM)
    clusters = kmeans(vectors, codes, generator=torch.Generator().manual_seed(0))
    book = model.vq._codebook
    book.embed.copy_(clusters.centres)
    book.cluster_size.copy_(clusters.counts * BATCH * POSITIONS / clusters.counts.sum())
    book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
    return examined(path, task, model)


@pytest.mark.parametrize(("codes", "expected"), [(2, {"VQ605": Severity.WARNING}), (64, {})])
def test_codes_that_cost_the_task(tmp_path: Path, codes: int, expected: dict[str, Severity]) -> None:
    assert found(quantized_afterwards(tmp_path, codes), "VQ605") == expected


class Mapped(nn.Module):
    """Codes that a linear map of some rank makes of a table; the product is what is stored."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.register_buffer("embedding", torch.zeros(64, DIM))
        self.left = nn.Parameter(torch.randn(64, rank))
        self.right = nn.Parameter(torch.randn(rank, DIM))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        codebook = self.left @ self.right
        self.embedding.copy_(codebook.detach())
        chosen = torch.cdist(z.detach(), codebook.detach().expand(len(z), -1, -1)).argmin(-1)
        codes = codebook[chosen]
        loss = functional.mse_loss(codes, z.detach()) + 0.25 * functional.mse_loss(z, codes.detach())
        return z + (codes - z).detach(), chosen, loss


@pytest.mark.parametrize(("rank", "fires"), [(1, True), (2, True), (DIM, False)])
def test_codes_of_low_rank(tmp_path: Path, rank: int, fires: bool) -> None:
    report = patient(tmp_path, lambda: Model(Mapped(rank), nn.Identity()), steps=300)
    assert ("VQ504" in found(report)) is fires


def test_codes_of_low_rank_for_data_of_low_rank_are_healthy(tmp_path: Path) -> None:
    flat = torch.randn(480, POSITIONS, 2, generator=torch.Generator().manual_seed(8))
    x = torch.cat([2 * flat, torch.zeros(480, POSITIONS, DIM - 2)], dim=2)

    def build() -> nn.Module:
        return Model(VectorQuantize(DIM, 64, decay=0.9, kmeans_init=True), nn.Identity())

    assert found(patient(tmp_path, build, x=x), "VQ504") == {}


# what a trace adds to VQ202 and VQ401


@pytest.mark.parametrize("weight", [0.001, 0.1])
def test_a_trace_shows_a_runaway_early_and_whether_training_still_helps(
    tmp_path: Path, weight: float
) -> None:
    recipe = replace(PLAIN, vq_weight=weight, epochs=4)
    torch.save(dict(train(recipe, dict(np.load(DIGITS)), 0).checkpoint), tmp_path / "model.pt")
    reports = [
        examine(tmp_path / "model.pt", data=DIGITS, settings=Settings(probe_steps=steps)) for steps in (0, 60)
    ]
    assert found(reports[0], "VQ202") == {}, "too early for what the sizes alone tell"
    assert set(found(reports[1], "VQ202")) == ({"VQ202"} if weight == 0.001 else set())
    advice = [f for report in reports for f in report.findings if f.code == "VQ401"]
    assert [f.severity for f in advice] == [Severity.NOTE] * 2
    assert [f.decide_with for f in advice] == ["--probe-steps 60", ""]
    assert advice[0].confidence is Confidence.LOW
    # under the usual weight the perplexity of the batches doubles in 60 steps, in a runaway it stands still
    assert advice[1].confidence is (Confidence.LOW if weight == 0.001 else Confidence.MEDIUM)


@pytest.mark.parametrize("name", ["healthy-256.pt", "healthy-512.pt"])
def test_healthy_samples_stay_healthy_under_a_trace(name: str) -> None:
    report = examine(DIGITS.with_name(name), data=DIGITS, settings=Settings(probe_steps=20))
    assert report.findings == ()
    assert {"trace", "revival", "encoder-spread"} <= {e.kind for e in report.evidence}
