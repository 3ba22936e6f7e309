"""Models whose VQ layer no file shows: FSQ, LFQ, residual FSQ, and a user's own under names of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_vqvae import Found, digits
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import FSQ, LFQ, ResidualFSQ, VectorQuantize

import vqdoctor
from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import CodebookGeometry, GradientPath, ImplicitLevels, TaskMetrics, Usage
from vqdoctor.core.report import Report
from vqdoctor.engine import Settings, UserModel, examine, exit_code
from vqdoctor.engine.retrain import retrain

DIM = 8


class Prototypes(nn.Module):
    """A user's quantizer whose codebook [D, K] has a name that says nothing, and which starts from data."""

    def __init__(self, start: bool = True) -> None:
        super().__init__()
        self.anchors = nn.Parameter(10 * torch.randn(DIM, 32))
        self.register_buffer("started", torch.tensor(not start))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.training and not self.started:
            vectors = z.detach().reshape(-1, DIM)
            self.anchors.data.copy_(vectors[torch.randperm(len(vectors))[:32]].T)
            self.started.fill_(True)
        table = self.anchors.T
        codes = table[torch.cdist(z, table.expand(len(z), -1, -1)).argmin(-1)]
        loss = functional.mse_loss(codes, z.detach()) + 0.25 * functional.mse_loss(z, codes.detach())
        return z + (codes - z).detach(), loss


class Rounding(nn.Module):
    """A user's own levels, which gives no codes; `estimator` False forgets the straight-through estimator."""

    def __init__(self, estimator: bool = True) -> None:
        super().__init__()
        self.down, self.up, self.estimator = nn.Linear(DIM, 3), nn.Linear(3, DIM), estimator
        self.round = Round(estimator)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.up(self.round(2 * torch.tanh(self.down(z))))


class Round(nn.Module):
    def __init__(self, estimator: bool) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z + (z.round() - z).detach() if self.estimator else z.round()


class Autoencoder(nn.Module):
    """Encoder, any quantizer of [B, N, D], decoder; `gain` makes z_e too large or too small."""

    def __init__(self, build: Callable[[], nn.Module], gain: float, norm: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, DIM, 3, 1, 1))
        self.norm = nn.LayerNorm(DIM, eps=1e-12, elementwise_affine=False) if norm else nn.Identity()
        self.bottleneck = build()
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(DIM, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 1, 3, 1, 1)
        )
        self.gain = gain

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        z = self.norm(self.gain * self.encoder(x).flatten(2).transpose(1, 2))
        out = self.bottleneck(z)
        z_q, *rest = out if isinstance(out, tuple) else (out,)
        losses = [t.sum() for t in rest if t.requires_grad]
        return self.decoder(z_q.transpose(1, 2).unflatten(2, (4, 4))), sum(losses) if losses else None


class Reconstruction:
    """The user's task, as they train it."""

    def __init__(
        self, build: Callable[[], nn.Module], *, gain: float = 1.0, norm: bool = False, weight: float = 1.0
    ) -> None:
        self.build, self.gain, self.norm, self.vq_weight = build, gain, norm, weight

    def model(self) -> nn.Module:
        return Autoencoder(self.build, self.gain, self.norm)

    def batches(self, split: str) -> Any:
        return {"train": digits()[0], "val": digits()[1]}[split].split(64)

    def losses(self, model: nn.Module, x: torch.Tensor) -> Any:
        recon, vq = model(x)
        return Found(functional.mse_loss(recon, x), vq)


@cache
def trained(task: Reconstruction, epochs: int = 6) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = task.model()
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        x = digits()[0]
        for _ in range(epochs):
            for batch in x[torch.randperm(len(x))].split(64):
                losses = task.losses(model, batch)
                optimizer.zero_grad()
                (losses.task + (0 if losses.vq is None else task.vq_weight * losses.vq)).backward()
                optimizer.step()
    return model


def inspected(task: Reconstruction, folder: Path, settings: Settings | None = None) -> Report:
    torch.save({"state_dict": trained(task).state_dict()}, folder / "c.pt")
    report = examine(folder / "c.pt", user_model=UserModel(task=task), settings=settings)
    assert not [outcome for outcome in report.outcomes if outcome.status == "crashed"]
    return report


def codes(report: Report) -> list[str]:
    return [f.code for f in report.findings if f.severity.label != "note"]


def fsq() -> nn.Module:
    return FSQ(levels=[8, 5, 5], dim=DIM)


def lfq() -> nn.Module:
    return LFQ(codebook_size=64, dim=DIM)


HEALTHY = {
    "fsq": (Reconstruction(fsq), {"bottleneck": 200}),
    "large fsq": (Reconstruction(lambda: FSQ(levels=[8, 8, 8, 5, 5, 5], dim=DIM)), {"bottleneck": 64_000}),
    "lfq": (Reconstruction(lfq), {"bottleneck": 64}),
    "residual fsq": (
        Reconstruction(lambda: ResidualFSQ(levels=[5, 5, 5], dim=DIM, num_quantizers=2)),
        {"bottleneck.layers.0": 125, "bottleneck.layers.1": 125},
    ),
    "own rounding": (Reconstruction(Rounding), {"bottleneck.round": 125}),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_layer_without_a_codebook_is_found_and_passes(name: str, tmp_path: Path) -> None:
    task, expected = HEALTHY[name]
    report = inspected(task, tmp_path)
    assert {layer.name: layer.num_codes for layer in report.layers} == expected
    assert all((layer.layout, layer.keys) == ("implicit", {}) for layer in report.layers)
    assert codes(report) == []
    assert (report.verdict, exit_code(report)) == ("healthy", 0)
    assert report.candidates == ()
    for layer in expected:
        assert report.find(Usage, layer) is not None and report.find(GradientPath, layer) is not None
        (dead,) = (o for o in report.outcomes if (o.code, o.layer) == ("VQ301", layer))
        assert dead.reason == "the layer stores no codebook: its codes are combinations of levels"
    assert report.find(TaskMetrics, None) is not None
    assert not any("needs data" in note for note in report.notes)


def test_the_usage_of_fsq_is_a_naive_count(tmp_path: Path) -> None:
    task = HEALTHY["fsq"][0]
    model = trained(task)
    with torch.no_grad():
        z = model.encoder(torch.cat(digits())).flatten(2).transpose(1, 2)
        counts = torch.bincount(model.bottleneck(z)[1].flatten().long(), minlength=200)
    usage = inspected(task, tmp_path).find(Usage, "bottleneck")
    assert usage is not None and usage.implicit
    assert (usage.vectors, usage.used) == (int(counts.sum()), int((counts > 0).sum()))


@pytest.mark.parametrize(
    ("gain", "cause", "says"),
    [(300.0, "VQ317", "at their lowest or highest"), (1e-3, "VQ501", "use a single level")],
)
def test_the_wrong_size_of_z_e_collapses_fsq_and_a_norm_mends_it(
    gain: float, cause: str, says: str, tmp_path: Path
) -> None:
    report = inspected(Reconstruction(fsq, gain=gain), tmp_path)
    first = report.findings[0]
    assert (first.code, first.layer, first.severity.label) == (cause, "bottleneck", "error")
    assert "VQ501" in codes(report)
    assert says in first.message
    assert first.remedies == ("normalise-before-vq",)
    assert [step.remedy for step in report.plan][:1] == ["normalise-before-vq"]
    assert "VQ101" not in codes(report)  # the estimator is there: what passes no gradient is the tanh's end
    assert (report.verdict, exit_code(report)) == ("collapsed", 1)
    levels = report.find(ImplicitLevels, "bottleneck")
    assert levels is not None and (min(levels.edge_share) > 0.9) == (gain > 1)
    assert codes(inspected(Reconstruction(fsq, gain=gain, norm=True), tmp_path)) == []


def test_lfq_with_too_little_of_its_entropy_loss_collapses(tmp_path: Path) -> None:
    report = inspected(Reconstruction(lfq, weight=0.02), tmp_path)
    first = report.findings[0]
    assert (first.code, first.remedies[0]) == ("VQ501", "raise-vq-weight")
    assert exit_code(report) == 1
    assert inspected(Reconstruction(lfq, weight=0.0), tmp_path).findings[0].code == "VQ205"


def test_levels_without_an_estimator_are_a_missing_one(tmp_path: Path) -> None:
    report = inspected(Reconstruction(lambda: Rounding(estimator=False), gain=10.0), tmp_path)
    assert (report.findings[0].code, report.findings[0].layer) == ("VQ101", "bottleneck.round")


def test_a_codebook_under_any_name_is_judged_as_the_file_holds_it(tmp_path: Path) -> None:
    own = Reconstruction(Prototypes)
    state = {f"module.{name}": tensor for name, tensor in trained(own).state_dict().items()}
    torch.save({"net": state}, tmp_path / "c.pt")
    report = examine(tmp_path / "c.pt", user_model=UserModel(task=own))
    (layer,) = report.layers
    assert (layer.name, layer.num_codes, layer.dim) == ("bottleneck", 32, DIM)
    assert layer.keys == {"codebook": "net.module.bottleneck.anchors"}
    assert report.find(CodebookGeometry, "bottleneck") is not None  # what the file alone tells of it
    assert report.find(Usage, "bottleneck") is not None
    assert codes(report) == []
    report = inspected(Reconstruction(lambda: Prototypes(start=False)), tmp_path)
    assert "VQ501" in codes(report)
    assert "data-init" in next(f.remedies for f in report.findings if f.code == "VQ501")


class Both(nn.Module):
    """A layer that its keys give away, and after it one that has none."""

    def __init__(self) -> None:
        super().__init__()
        self.vq, self.fsq = VectorQuantize(dim=DIM, codebook_size=64, kmeans_init=True), fsq()

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.vq(z)
        return z_q + self.fsq(z)[0], loss


def test_a_layer_of_each_kind_and_the_one_that_is_named(tmp_path: Path) -> None:
    task = Reconstruction(Both)
    report = inspected(task, tmp_path)
    assert [layer.name for layer in report.layers] == ["bottleneck.vq", "bottleneck.fsq"]
    for kind in (Usage, GradientPath):
        assert [e.layer for e in report.evidence if isinstance(e, kind)].count("bottleneck.fsq") == 1
        assert report.find(kind, "bottleneck.vq") is not None
    for name in ("bottleneck.vq", "bottleneck.fsq"):
        named = inspected(task, tmp_path, Settings(layer=name, batches=2, select=("VQ101",)))
        assert [layer.name for layer in named.layers] == [name]
    with pytest.raises(UserError, match="no VQ layer 'elsewhere'") as caught:
        inspected(task, tmp_path, Settings(layer="elsewhere", batches=2))
    assert "bottleneck.fsq" in str(caught.value.hint)


def test_a_live_model_in_a_script_and_a_factory_with_data(tmp_path: Path) -> None:
    task = HEALTHY["fsq"][0]
    model = trained(task)
    report = examine(None, data=digits()[0], user_model=UserModel(model=model, losses=task.losses))
    assert ([layer.name for layer in report.layers], exit_code(report)) == (["bottleneck"], 0)
    torch.save(model.state_dict(), tmp_path / "c.pt")
    np.savez(tmp_path / "x.npz", x=digits()[0].numpy())
    user_model = UserModel(model=lambda: FirstOf(task.model()))
    torch.save(FirstOf(model).state_dict(), tmp_path / "c.pt")
    report = examine(tmp_path / "c.pt", data=tmp_path / "x.npz", user_model=user_model)
    assert [layer.name for layer in report.layers] == ["inner.bottleneck"]
    assert exit_code(report) == 0


class FirstOf(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)[0]


def test_a_file_alone_says_what_would_show_such_a_layer(tmp_path: Path) -> None:
    torch.save(trained(HEALTHY["fsq"][0]).state_dict(), tmp_path / "c.pt")
    report = examine(tmp_path / "c.pt")
    assert exit_code(report) == 3
    assert any("run the model, with --task" in note for note in report.notes)


def test_a_model_that_quantizes_nowhere_is_said_to(tmp_path: Path) -> None:
    report = inspected(Reconstruction(nn.Identity), tmp_path)
    assert report.layers == ()
    assert (report.verdict, exit_code(report)) == ("inconclusive", 3)
    assert any("none of its modules gives few different vectors" in note for note in report.notes)


class _ByLogits(torch.nn.Module):
    """A quantizer under names of its own that chooses by logits, wherever the codes lie."""

    def __init__(self) -> None:
        super().__init__()
        self.choose = torch.nn.Linear(8, 24)
        self.page = torch.nn.Embedding(24, 8)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        logits = self.choose(h)
        soft = logits.softmax(-1)
        hard = torch.nn.functional.one_hot(logits.argmax(-1), 24).to(h)
        return (hard + soft - soft.detach()) @ self.page.weight


class _WithLogits(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc, self.pick, self.dec = torch.nn.Linear(6, 8), _ByLogits(), torch.nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dec(self.pick(self.enc(x)))


def test_distances_mean_nothing_where_a_map_of_logits_chooses() -> None:
    """The codes of such a layer may lie anywhere: it is found by its output, and no distance is judged."""
    torch.manual_seed(0)
    model, x = _WithLogits(), torch.randn(512, 6)
    losses = lambda model, batch: vqdoctor.Losses(task=(model(batch) - batch).pow(2).mean())  # noqa: E731
    report = vqdoctor.examine(model, x, losses=losses)
    assert [layer.layout for layer in report.layers] == ["found by its output"]
    assert not {finding.code for finding in report.findings} & {"VQ301", "VQ310", "VQ504"}


@pytest.mark.parametrize("build", [fsq, lfq, Rounding])
def test_a_layer_without_a_codebook_is_retrained_by_the_remedies_that_write_no_codes(
    build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    task = Reconstruction(build)
    epochs = 6 if build is Rounding else 1  # how many levels it has is known by their use alone
    torch.save({"state_dict": trained(task, epochs).state_dict()}, tmp_path / "c.pt")
    settings = Settings(epochs=2, only=("lower-vq-weight", "data-init"))
    report = retrain(
        tmp_path / "c.pt", tmp_path / "out.pt", user_model=UserModel(task=task), settings=settings
    )
    done = report.retraining
    assert done is not None and done.before is not None and done.after is not None and done.written
    assert done.after.loss < done.before.loss
    (name,) = done.after.layers
    assert name == ("bottleneck.round" if build is Rounding else "bottleneck")
    assert 1 < done.after.layers[name].used <= done.after.layers[name].num_codes
    assert {r.remedy: r.status for r in report.repairs} == {
        "lower-vq-weight": "applied",
        "data-init": "skipped",
    }
    task.model().load_state_dict(torch.load(tmp_path / "out.pt", weights_only=True)["state_dict"])


class _Grouped(nn.Module):
    """Two groups whose codes are one tensor of the model itself, which looks them up itself."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.randn(2, 16, 4))
        self.encoder, self.decoder = nn.Linear(10, 8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.encoder(x).view(-1, 2, 4)
        chosen = (z[:, :, None] - self.words[None]).square().sum(-1).argmin(-1)
        codes = torch.stack([self.words[h][chosen[:, h]] for h in range(2)], dim=1)
        return self.decoder((z + (codes - z).detach()).flatten(1))  # type: ignore[no-any-return]


class _GroupedTask:
    vq_weight = 1.0

    def model(self) -> nn.Module:
        return _Grouped()

    def batches(self, split: str) -> Iterator[torch.Tensor]:
        return iter(torch.randn(256, 10, generator=torch.Generator().manual_seed(1)).split(64))

    def losses(self, model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
        return vqdoctor.Losses(task=(model(x) - x).square().mean())


def test_codes_whose_vectors_are_not_seen_are_found_and_a_retraining_does_not_claim_to_place_them(
    tmp_path: Path,
) -> None:
    task = UserModel(task=_GroupedTask())
    torch.manual_seed(0)
    torch.save(_Grouped().state_dict(), tmp_path / "c.pt")
    layers = [layer.name for layer in examine(tmp_path / "c.pt", user_model=task).layers]
    assert layers == ["words[head 0]", "words[head 1]"]
    settings = Settings(epochs=1, only=("data-init", "revive-dead-codes"), codebook_key="words")
    report = retrain(tmp_path / "c.pt", tmp_path / "out.pt", user_model=task, settings=settings)
    assert {r.remedy: (r.status, "cannot be seen" in r.reason) for r in report.repairs} == {
        "data-init": ("skipped", True),
        "revive-dead-codes": ("skipped", True),
    }


def test_the_plan_places_no_codes_that_logits_choose(tmp_path: Path) -> None:
    table = torch.randn(64, 4)
    table[20:] = table[0]
    state = {"quantize.embed.weight": table, "quantize.proj.weight": torch.randn(64, 6, 1, 1)}
    torch.save(state, tmp_path / "c.pt")
    names = {step.remedy for step in vqdoctor.examine(tmp_path / "c.pt").plan}
    assert "warm-up" in names and not names & {"data-init", "revive-dead-codes"}
