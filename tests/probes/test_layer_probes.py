"""Really built and trained VQ layers with one fault each, and their twins without: what the probes measure,
and what the checks make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from stored import Stored
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import GroupedResidualVQ, ResidualVQ, SimVQ, VectorQuantize

from vqdoctor.checks import all_checks
from vqdoctor.core.evidence import Evidence, TrainingRecord
from vqdoctor.core.finding import Finding
from vqdoctor.core.levels import Severity
from vqdoctor.engine.evaluate import evaluate
from vqdoctor.engine.gather import Gathered
from vqdoctor.layouts import find_quantizers
from vqdoctor.models.task import Losses
from vqdoctor.models.untouched import untouched
from vqdoctor.probes.model import (
    ModelContext,
    codebook_writers,
    flattening,
    gradient_health,
    lookup_precision,
    loss_balance,
    loss_terms,
    loss_use,
    residual_level,
    usage,
)

CODES = ("VQ104", "VQ105", "VQ106", "VQ107", "VQ108", "VQ203", "VQ204", "VQ205")
CHECKS = [check for check in all_checks() if check.code in CODES]
PROBES = (
    codebook_writers, flattening, gradient_health, lookup_precision, loss_balance, loss_terms, loss_use,
    residual_level, usage,
)  # fmt: skip
DIM, SIDE, K = 12, 4, 32


class Autoencoder(nn.Module):
    """A convolutional encoder, any VQ layer of [B, D, H, W], and a decoder; `cut` comes between them."""

    def __init__(self, vq: nn.Module, cut: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, DIM, 3, padding=1)
        )
        self.vq = vq
        self.decoder = nn.Sequential(
            nn.Conv2d(DIM, 16, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1)
        )
        self.cut = cut or (lambda z: z)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.encoder(x)
        z_q, _, loss = self.vq(self.cut(z))
        return self.decoder(z_q.reshape(z.shape) if z_q.shape != z.shape else z_q), loss.sum()


class AsRows(nn.Module):
    """A VQ layer of [B, N, D] on maps [B, D, H, W], rightly permuted there and back."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        z_q, indices, loss = self.inner(z.flatten(2).transpose(1, 2))
        return z_q.transpose(1, 2).reshape(z.shape), indices, loss


class ImageTask:
    """Smooth images of 8 x 8, in batches of 32; the losses are the options of the tests."""

    def __init__(self, model: nn.Module, weight: float | None = 0.25, report: str = "vq") -> None:
        self._model, self.vq_weight, self._report = model, weight, report
        generator = torch.Generator().manual_seed(1)
        coarse = torch.rand(128, 1, 3, 3, generator=generator)
        self.x = functional.interpolate(coarse, size=(8, 8), mode="bilinear")

    def model(self) -> nn.Module:
        return self._model

    def batches(self, split: str) -> Iterator[Any]:
        return iter(self.x.split(32))

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        image, vq = model(batch)
        reported = {"vq": vq, "detached": vq.detach(), "none": None}[self._report]
        return Losses(task=functional.mse_loss(image, batch), vq=reported)


class Listed(ImageTask):
    """The same with an optimizer of all parameters."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=1e-3)


def trained(model: nn.Module, task: Any = None, steps: int = 60, lr: float = 3e-3) -> tuple[nn.Module, Any]:
    """Train briefly by the task's own losses."""
    task = task or ImageTask(model)
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for step in range(steps):
        batch = list(task.batches("train"))[step % 4]
        losses = task.losses(model, batch)
        total = losses.task
        if losses.vq is not None and task.vq_weight:
            total = total + task.vq_weight * losses.vq
        adam.zero_grad()
        total.backward()
        adam.step()
    return model, task


def examine(
    model: nn.Module, task: Any, record: TrainingRecord | None = None, probes: Any = PROBES
) -> tuple[dict[tuple[str, str | None], Evidence], list[Finding]]:
    """Return the evidence by kind and layer, and the findings of this part's checks."""
    found = find_quantizers({name: Stored(t) for name, t in model.state_dict().items()})
    assert found.views
    context = ModelContext(
        model=model, task=task, views=found.views, record=record,
    )  # fmt: skip
    gathered = Gathered(evidence=[record] if record else [])
    with untouched(model, seed=0):
        gathered.run([probe.PROBE for probe in probes], context, "batch")
    assert gathered.crashed == []
    evidence = gathered.evidence
    judgement = evaluate(CHECKS, [view.name for view in found.views], evidence, gathered.unavailable)
    assert [o for o in judgement.outcomes if o.status == "crashed"] == []
    return {(item.kind, item.layer): item for item in evidence}, list(judgement.findings)


def codes(findings: list[Finding]) -> set[str]:
    return {finding.code for finding in findings}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


# --- healthy -----------------------------------------------------------------------------------------

ROWS: dict[str, Any] = {"dim": DIM, "codebook_size": K}
IMAGE = {**ROWS, "accept_image_fmap": True}
HEALTHY: dict[str, Callable[[], nn.Module]] = {
    "euclid": lambda: VectorQuantize(**IMAGE, rotation_trick=False),
    "rotation trick": lambda: VectorQuantize(**IMAGE, rotation_trick=True),
    "cosine": lambda: VectorQuantize(**IMAGE, use_cosine_sim=True),
    "learnable": lambda: VectorQuantize(**IMAGE, learnable_codebook=True, ema_update=False),
    "revival beside an optimizer": lambda: VectorQuantize(
        **IMAGE, learnable_codebook=True, ema_update=False, threshold_ema_dead_code=1
    ),
    "optimizer of its own": lambda: VectorQuantize(
        **IMAGE, learnable_codebook=True, ema_update=False,
        in_place_codebook_optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
    ),
    "k-means and revival": lambda: VectorQuantize(**IMAGE, kmeans_init=True, threshold_ema_dead_code=2),
    "low-dimensional codes": lambda: VectorQuantize(**IMAGE, codebook_dim=4),
    "two heads": lambda: VectorQuantize(**IMAGE, heads=2, codebook_dim=4),
    "residual": lambda: AsRows(ResidualVQ(**ROWS, num_quantizers=4, kmeans_init=True)),
    "residual, straight through": lambda: AsRows(ResidualVQ(**ROWS, num_quantizers=4, rotation_trick=False)),
    "grouped residual": lambda: AsRows(GroupedResidualVQ(**ROWS, num_quantizers=2, groups=2)),
    "SimVQ": lambda: SimVQ(dim=DIM, codebook_size=K, channel_first=True),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_layers_get_none_of_these_findings(kind: str) -> None:
    model, task = trained(Autoencoder(HEALTHY[kind]()))
    evidence, findings = examine(model, task)
    assert findings == []
    assert {k for k, _ in evidence} >= {"flattening", "gradient-health", "loss-use"}


class Codebook(nn.Module):
    """A plain VQ layer of [B, D, H, W], trained by gradient or by EMA, with a switch for each fault."""

    def __init__(
        self, *, view: bool = False, swap: bool = False, reduce: str = "mean", spread: float = 0.3,
        legacy: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedding = nn.Embedding(K, DIM)
        nn.init.normal_(self.embedding.weight, std=spread)
        self.view, self.swap, self.reduce, self.legacy, self.beta = view, swap, reduce, legacy, 0.25

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        vectors = z if self.view else z.permute(0, 2, 3, 1)
        rows = vectors.reshape(-1, DIM)
        codes = self.embedding.weight
        # expanded, as most libraries do it: autocast takes the product to half precision
        apart = rows.square().sum(1, keepdim=True) - 2 * rows @ codes.T + codes.square().sum(1)
        indices = apart.argmin(1)
        z_q = self.embedding(indices).view(vectors.shape)
        if not self.view:
            z_q = z_q.permute(0, 3, 1, 2)
        codebook, commitment = self._error(z_q - z.detach()), self._error(z - z_q.detach())
        loss = self.beta * codebook + commitment if self.swap else codebook + self.beta * commitment
        return z + (z_q - z).detach(), indices.view(len(z), SIDE, SIDE), loss

    def _error(self, apart: torch.Tensor) -> torch.Tensor:
        return apart.square().mean() if self.reduce == "mean" else apart.square().sum(1).mean()


class Diffusers(nn.Module):
    """The layer of diffusers' VQModel, whose terms are swapped and which says so (`legacy=True`)."""

    def __init__(self) -> None:
        super().__init__()
        vae = pytest.importorskip("diffusers.models.autoencoders.vae")
        self.quantize = vae.VectorQuantizer(K, DIM, beta=0.25)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z_q, loss, (_, _, indices) = self.quantize(z)
        return z_q, indices, loss


@pytest.mark.parametrize("kind", ["diffusers", "taming", "taming, legacy", "plain"])
def test_healthy_layers_of_other_kinds_get_none_of_these_findings(kind: str) -> None:
    layers: dict[str, Callable[[], nn.Module]] = {
        "diffusers": Diffusers,
        "taming": lambda: Codebook(spread=0.03),
        "taming, legacy": lambda: Codebook(spread=0.03, swap=True, legacy=True),
        "plain": lambda: Codebook(spread=0.1),
    }
    model, task = trained(Autoencoder(layers[kind]()), steps=400)
    evidence, findings = examine(model, task)
    (terms,) = (e for (k, _), e in evidence.items() if k == "loss-terms")
    assert terms.commitment / terms.codebook == pytest.approx(4.0 if terms.legacy else 0.25, rel=0.02)
    notes = [("VQ203", Severity.NOTE)] if terms.legacy else []  # swapped, as it says of itself
    assert [(f.code, f.severity) for f in findings] == notes


# --- VQ104 two writers -------------------------------------------------------------------------------


def test_a_loss_on_codes_that_an_ema_overwrites() -> None:
    model = Autoencoder(VectorQuantize(**IMAGE, orthogonal_reg_weight=10.0))
    evidence, findings = examine(*trained(model, Listed(model)))
    writers = evidence["codebook-writers", "vq"]
    assert writers.kept == pytest.approx(0.0, abs=1e-3) and writers.listed is True
    assert codes(findings) == {"VQ104"}
    # the same by hand: the optimizer's step is gone after the next forward pass
    before = model.vq._codebook.embed.detach().clone()
    with torch.no_grad():
        model.vq._codebook.embed += 0.1
    model.train()(ImageTask(model).x[:32])
    assert not torch.allclose(model.vq._codebook.embed, before + 0.1, atol=0.05)


def test_the_same_loss_with_an_optimizer_alone() -> None:
    options = {"orthogonal_reg_weight": 10.0, "learnable_codebook": True, "ema_update": False}
    model = Autoencoder(VectorQuantize(**IMAGE, **options))
    evidence, findings = examine(*trained(model, Listed(model)))
    assert evidence["codebook-writers", "vq"].kept == pytest.approx(1.0, abs=1e-3)
    assert findings == []


def test_an_optimizer_alone_writes_a_codebook_in_bfloat16_too() -> None:
    """The next number of that type is 0.4 to 0.8 % away: a smaller move is none."""
    model, task = trained(Autoencoder(Codebook(spread=0.1)), steps=50)
    model.bfloat16()
    task.x = task.x.bfloat16()
    evidence, findings = examine(model, task)
    assert evidence["codebook-writers", "vq"].kept == pytest.approx(1.0, abs=1e-2)
    assert "VQ104" not in codes(findings)


class Zalando(nn.Module):
    """The EMA of zalandoresearch/pytorch-vq-vae, which replaces its parameter or writes into it."""

    def __init__(self, rewrap: bool) -> None:
        super().__init__()
        self.rewrap = rewrap
        self._embedding = nn.Embedding(K, DIM)
        self._embedding.weight.data.normal_(std=0.3)
        self.register_buffer("_ema_cluster_size", torch.ones(K))
        self._ema_w = nn.Parameter(self._embedding.weight.data.clone())

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = z.permute(0, 2, 3, 1).reshape(-1, DIM)
        indices = torch.cdist(rows, self._embedding.weight).argmin(1)
        votes = functional.one_hot(indices, K).float()
        if self.training:
            self._ema_cluster_size = self._ema_cluster_size * 0.99 + 0.01 * votes.sum(0)
            sums = (self._ema_w * 0.99 + 0.01 * votes.T @ rows).detach()
            new = sums / self._ema_cluster_size[:, None]
            if self.rewrap:
                self._ema_w, self._embedding.weight = nn.Parameter(sums), nn.Parameter(new)
            else:
                self._ema_w.data.copy_(sums)
                self._embedding.weight.data.copy_(new)
        z_q = (votes @ self._embedding.weight.detach()).view(len(z), SIDE, SIDE, DIM).permute(0, 3, 1, 2)
        loss = 0.25 * functional.mse_loss(z_q, z)
        return z + (z_q - z).detach(), indices.view(len(z), SIDE, SIDE), loss


@pytest.mark.parametrize("rewrap", [True, False])
def test_a_parameter_that_is_replaced_in_every_forward_pass_is_a_note(rewrap: bool) -> None:
    model = Autoencoder(Zalando(rewrap))
    evidence, findings = examine(*trained(model, Listed(model)))
    assert evidence["codebook-writers", "vq"].replaced is rewrap
    assert [(f.code, f.severity.label) for f in findings] == ([("VQ104", "note")] if rewrap else [])


# --- VQ105 wrong flatten -----------------------------------------------------------------------------


@pytest.mark.parametrize("view", [True, False])
def test_a_view_without_a_permute_inside_the_layer(view: bool) -> None:
    evidence, findings = examine(*trained(Autoencoder(Codebook(view=view))))
    cut = evidence["flattening", "vq"]
    assert cut.positions == SIDE * SIDE
    assert (
        (cut.equal, cut.equal_as_stored) == (pytest.approx(cut.by_chance, abs=0.3), 1.0)
        if view
        else (1.0, None)
    )
    assert codes(findings) == ({"VQ105"} if view else set())


def test_a_view_is_found_although_all_data_goes_to_one_code() -> None:
    model = Autoencoder(Codebook(view=True))
    nn.init.zeros_(model.encoder[2].weight)
    nn.init.ones_(model.encoder[2].bias)
    evidence, findings = examine(model, ImageTask(model))
    assert evidence["usage", "vq"].used == 1
    assert "VQ105" in codes(findings)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_a_view_without_a_permute_before_the_layer(right: bool, frozen: bool) -> None:
    def cut(z: torch.Tensor) -> torch.Tensor:
        z = functional.leaky_relu(z)
        return z.flatten(2).transpose(1, 2) if right else z.reshape(len(z), -1, DIM)

    class Back(VectorQuantize):
        def forward(self, z: torch.Tensor) -> Any:
            z_q, indices, loss = super().forward(z)
            return z_q, indices, loss

    class Model(Autoencoder):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            z = self.encoder(x)
            z_q, _, loss = self.vq(self.cut(z))
            back = z_q.transpose(1, 2) if right else z_q
            return self.decoder(back.reshape(z.shape)), loss.sum()

    model, task = trained(Model(VectorQuantize(**ROWS), cut))
    model.encoder.requires_grad_(not frozen)
    evidence, findings = examine(model, task)
    assert evidence["flattening", "vq"].input_runs is not right
    assert evidence["flattening", "vq"].equal == 1.0, "the layer itself is right"
    assert codes(findings) == (set() if right else {"VQ105"})


@pytest.mark.parametrize("right", [False, True])
def test_a_view_before_a_mask_picks_the_vectors(right: bool) -> None:
    class Model(Autoencoder):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            z = self.encoder(x)
            vectors = z.flatten(2).transpose(1, 2) if right else z.reshape(len(z), -1, DIM)
            keep = torch.arange(SIDE * SIDE).expand(len(z), -1) % 3 > 0
            whole = torch.zeros_like(vectors)
            z_q, _, loss = self.vq(vectors[keep][None])
            whole[keep] = z_q[0]
            return self.decoder((whole.transpose(1, 2) if right else whole).reshape(z.shape)), loss.sum()

    evidence, findings = examine(*trained(Model(VectorQuantize(**ROWS))))
    assert evidence["flattening", "vq"].input_runs is not right
    assert codes(findings) == (set() if right else {"VQ105"})


class Series(nn.Module):
    """12 tokens of 12 dimensions: behind a convolution over the tokens, or one whose channels come first."""

    def __init__(self, over_tokens: bool) -> None:
        super().__init__()
        mixed = nn.Sequential(nn.Linear(5, DIM), nn.Conv1d(DIM, DIM, 1))
        self.over_tokens = over_tokens
        self.encoder = mixed if over_tokens else nn.Conv1d(5, DIM, 3, padding=1)
        self.vq = VectorQuantize(**ROWS)
        self.decoder = nn.Linear(DIM, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        series = x.flatten(1)[:, : 5 * DIM].reshape(len(x), DIM, 5)
        z_q, _, loss = self.vq(self.encoder(series if self.over_tokens else series.transpose(1, 2)))
        image = functional.pad(self.decoder(z_q).flatten(1), (0, 4))
        return image.reshape(x.shape), loss.sum()


@pytest.mark.parametrize("over_tokens", [True, False])
def test_a_convolution_over_as_many_tokens_as_dimensions_needs_no_permute(over_tokens: bool) -> None:
    _, findings = examine(*trained(Series(over_tokens)))
    assert codes(findings) == (set() if over_tokens else {"VQ105"})


# --- VQ106 residual ----------------------------------------------------------------------------------


class Residual(nn.Module):
    """Levels whose codes carry a straight-through gradient, or are raw with one step around all."""

    def __init__(self, levels: int, *, detach: bool, outer: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            VectorQuantize(**ROWS, rotation_trick=False, route_gradients_to_input=not outer)
            for _ in range(levels)
        )
        self.detach, self.outer = detach, outer

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        residual, total, losses, chosen = z, torch.zeros_like(z), [], []
        for layer in self.layers:
            z_q, indices, loss = layer(residual)
            residual = residual - (z_q.detach() if self.detach else z_q)
            total = total + z_q
            losses.append(loss.sum())
            chosen.append(indices)
        out = z + (total - z).detach() if self.outer else total
        return out, torch.stack(chosen, -1), torch.stack(losses).sum()


@pytest.mark.parametrize(
    ("levels", "detach", "outer", "reach", "gain", "found"),
    [
        (3, False, False, 0.0, 1.0, {"inner.layers.1", "inner.layers.2"}),
        (3, True, False, 1.0, 3.0, set()),
        (12, True, False, 1.0, 12.0, {"inner.layers.0"}),
        (3, True, True, 1.0, 1.0, set()),
    ],
)
def test_residual_levels(
    levels: int, detach: bool, outer: bool, reach: float, gain: float, found: set[str]
) -> None:
    model = Autoencoder(AsRows(Residual(levels, detach=detach, outer=outer)))
    evidence, findings = examine(*trained(model))
    measured = [evidence["residual-level", f"vq.inner.layers.{i}"] for i in range(levels)]
    assert [m.level for m in measured] == [*range(1, levels + 1)]
    assert [m.reach for m in measured] == pytest.approx([1.0] + [reach] * (levels - 1), abs=1e-6)
    assert [m.gain for m in measured] == pytest.approx([gain] * levels, rel=1e-4)
    assert {f.layer for f in findings if f.code == "VQ106"} == {f"vq.{name}" for name in found}
    assert codes(findings) <= {"VQ106"}


def test_the_reach_is_that_of_the_commitment_losses_by_hand() -> None:
    for detach in (False, True):
        residual = Residual(3, detach=detach, outer=False).train()
        z = torch.randn(2, 5, DIM, requires_grad=True)
        inputs: list[torch.Tensor] = []
        for layer in residual.layers:
            layer.register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0]))
        residual(z)
        pulls = [torch.autograd.grad(x.square().sum(), z, retain_graph=True)[0].norm() for x in inputs]
        assert [float(pull) > 1e-4 for pull in pulls] == [True, detach, detach]


# --- VQ107 spikes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", [True, False])
def test_the_rotation_trick_spikes_where_a_residual_is_nearly_zero(rotation: bool) -> None:
    """As after a revival: codes of the first level were copied from vectors of the batch."""
    inner = ResidualVQ(**ROWS, num_quantizers=2, rotation_trick=rotation)
    model, task = trained(Autoencoder(AsRows(inner)))
    assert examine(model, task)[1] == []
    with torch.no_grad():
        vectors = model.encoder(task.x[:32]).flatten(2).transpose(1, 2).reshape(-1, DIM)[:3]
        inner.layers[0]._codebook.embed[0, :3] = vectors + 1e-6
    evidence, findings = examine(model, task)
    health = evidence["gradient-health", "vq.inner.layers.1"]
    if rotation:
        assert health.worst_gain > 1000 and health.spikes in (1, 2, 3)
        assert [(f.code, f.layer) for f in findings] == [("VQ107", "vq.inner.layers.1")]
    else:
        assert health.worst_gain == pytest.approx(1.0, abs=1e-5)
        assert findings == []


class Root(Codebook):
    """Normalises by a square root without an epsilon, which has an infinite slope at zero, or with one."""

    epsilon = 0.0

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        clipped = z - z.detach() * (z.detach().abs() < 0.05)
        norm = (clipped.square().sum(1, keepdim=True) + self.epsilon).sqrt()
        z_q, indices, loss = super().forward(z)
        return z_q, indices, loss + 0.01 * norm.mean()


def test_gradients_that_are_not_finite() -> None:
    model = Autoencoder(Root())
    nn.init.zeros_(model.encoder[2].weight)
    nn.init.zeros_(model.encoder[2].bias)
    evidence, findings = examine(model, ImageTask(model))
    health = evidence["gradient-health", "vq"]
    assert health.broken == 4 * 32 * SIDE * SIDE * DIM and health.broken_input == 0
    assert [f.severity.label for f in findings if f.code == "VQ107"] == ["error"]
    model.vq.epsilon = 1e-6
    evidence, findings = examine(model, ImageTask(model))
    assert evidence["gradient-health", "vq"].broken == 0
    assert "VQ107" not in codes(findings)


def test_an_encoder_that_gives_nan_is_named() -> None:
    model = Autoencoder(Codebook())
    with torch.no_grad():
        model.encoder[2].bias[0] = float("nan")
    evidence, findings = examine(model, ImageTask(model), probes=(gradient_health,))
    assert evidence["gradient-health", "vq"].broken_input == 4 * 32 * SIDE * SIDE
    (finding,) = (f for f in findings if f.code == "VQ107")
    assert "z_e" in finding.message


# --- VQ108 precision ---------------------------------------------------------------------------------


class Half(ImageTask):
    """A task whose losses run under autocast."""

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().losses(model, batch)


class Tight(Codebook):
    """Codes close together, far from the origin, in a lookup that autocast reaches or does not."""

    def __init__(self, offset: float, guarded: bool) -> None:
        super().__init__(spread=0.05)
        self.embedding.weight.data += offset
        self.offset, self.guarded = offset, guarded

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z = 0.1 * z.float() + self.offset
        with torch.autocast("cpu", enabled=not self.guarded and torch.is_autocast_enabled("cpu")):
            return super().forward(z)


@pytest.mark.parametrize(
    ("offset", "guarded", "fires"), [(3.0, False, True), (3.0, True, False), (0.0, False, False)]
)
def test_a_lookup_under_autocast(offset: float, guarded: bool, fires: bool) -> None:
    model = Autoencoder(Tight(offset, guarded))
    evidence, findings = examine(model, Half(model))
    precision = evidence["lookup-precision", "vq"]
    assert precision.dtype == "bfloat16"
    assert (precision.agreement < 0.5) if fires else (precision.agreement > 0.95)
    assert ("VQ108" in codes(findings)) is fires


class Shifted(nn.Module):
    """A layer around a lookup whose vectors share an offset."""

    def __init__(self) -> None:
        super().__init__()
        self.vq = Codebook(spread=0.05)
        self.vq.embedding.weight.data += 1.0

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.vq(0.1 * z.float() + 1.0)


def test_the_error_that_a_precision_adds_is_that_of_the_farther_codes() -> None:
    model = Autoencoder(Shifted())
    precision = examine(model, Half(model))[0]["lookup-precision", "vq.vq"]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        z = 0.1 * model.eval().encoder(ImageTask(model).x[:32]).float() + 1.0
        chosen = model.vq.vq(z)[1]
    vectors, codes = z.permute(0, 2, 3, 1).reshape(-1, DIM), model.vq.vq.embedding.weight.detach()
    found = (vectors - codes[chosen.flatten()]).square().sum(1).mean()
    least = torch.cdist(vectors, codes).square().amin(1).mean()
    assert precision.error_growth == pytest.approx(float(found / least - 1), rel=0.02)
    assert precision.added_error == pytest.approx(
        float((found - least) / vectors.var(0, correction=0).sum()), rel=0.02
    )
    assert precision.error_growth > 0.01


class CastInside(nn.Module):
    """A lookup that casts by itself, and returns no indices."""

    def __init__(self, scale: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.embedding = nn.Embedding(K, DIM)
        self.embedding.weight.data.mul_(0.5 * scale)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
        rows = z.permute(0, 2, 3, 1).reshape(-1, DIM)
        cast, codes = rows.to(self.dtype), self.embedding.weight.to(self.dtype)
        apart = cast.pow(2).sum(1, keepdim=True) + codes.pow(2).sum(1) - 2 * cast @ codes.T
        z_q = self.embedding(apart.argmin(1))
        loss = functional.mse_loss(z_q, rows.detach()) + functional.mse_loss(rows, z_q.detach())
        out = rows + (z_q - rows).detach()
        return out.view(len(z), SIDE, SIDE, DIM).permute(0, 3, 1, 2), None, loss


class Scaled(nn.Module):
    """A layer around a lookup that casts, whose vectors have any scale."""

    def __init__(self, scale: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale, self.vq = scale, CastInside(scale, dtype)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
        z_q, _, loss = self.vq(self.scale * z)
        return z_q / self.scale, None, loss


@pytest.mark.parametrize(
    ("scale", "dtype", "fires"),
    [(1e-4, torch.float16, True), (1.0, torch.float16, False), (1e-4, torch.float32, False)],
)
def test_a_lookup_that_casts_by_itself(scale: float, dtype: torch.dtype, fires: bool) -> None:
    torch.manual_seed(0)
    model = Autoencoder(Scaled(scale, dtype))
    evidence, findings = examine(model, ImageTask(model))
    precision = evidence["lookup-precision", "vq.vq"]
    assert precision.dtype == str(dtype).removeprefix("torch.")
    if fires:  # all squares are less than the least number of float16, so the first code is chosen
        assert precision.used == 1 < precision.used_in_full
    else:
        assert precision.agreement > 0.95
    assert ("VQ108" in codes(findings)) is fires


def test_agreement_is_one_in_float32_and_counts_are_naive() -> None:
    model = Autoencoder(Codebook())
    precision = examine(model, ImageTask(model))[0]["lookup-precision", "vq"]
    with torch.no_grad():
        chosen = model.eval().vq(model.encoder(ImageTask(model).x[:32]))[1]
    assert (precision.agreement, precision.used) == (1.0, len(chosen.unique()))
    assert precision.dtype == "float32"
    assert (precision.error_growth, precision.added_error) == (0.0, 0.0)


# --- VQ203, VQ204: the terms of the loss -------------------------------------------------------------

BETA = TrainingRecord(source="checkpoint", sample_size=1, commitment_weight=0.25)


@pytest.mark.parametrize("record", [BETA, None])
@pytest.mark.parametrize("swap", [True, False])
def test_beta_on_the_wrong_term(swap: bool, record: TrainingRecord | None) -> None:
    model, task = trained(Autoencoder(Codebook(swap=swap)))
    evidence, findings = examine(model, task, record)
    terms = evidence["loss-terms", "vq"]
    assert (terms.commitment, terms.codebook) == pytest.approx((1.0, 0.25) if swap else (0.25, 1.0), rel=0.01)
    assert terms.beta_from == ("record" if record else "layer")
    found = [(f.code, f.confidence.label) for f in findings]
    assert found == ([("VQ203", "high" if record else "medium")] if swap else [])


def test_the_terms_of_a_learnable_vector_quantize_are_told() -> None:
    vq = VectorQuantize(**IMAGE, learnable_codebook=True, ema_update=False, commitment_weight=0.7)
    terms = examine(*trained(Autoencoder(vq)))[0]["loss-terms", "vq"]
    assert (terms.commitment, terms.codebook, terms.beta) == pytest.approx((0.7, 0.7, 0.7), rel=0.02)


def test_the_weight_of_the_encoders_term_holds_its_share_of_the_loss() -> None:
    vq = SimVQ(DIM, K, channel_first=True, commitment_weight=0.8, input_to_quantize_commit_loss_weight=0.5)
    terms = examine(*trained(Autoencoder(vq)))[0]["loss-terms", "vq"]
    assert (terms.commitment, terms.beta, terms.beta_from) == (pytest.approx(0.4, rel=0.02), 0.4, "layer")


@pytest.mark.parametrize("rotation_trick", [True, False])
def test_every_level_of_a_residual_stack_tells_the_weight_of_its_own_term(rotation_trick: bool) -> None:
    """At the z_e of a level pull the levels after it too, each by its own error."""
    settings = {"num_quantizers": 3, "kmeans_init": True, "rotation_trick": rotation_trick}
    vq = AsRows(ResidualVQ(**ROWS, **settings, commitment_weight=0.7))
    evidence = examine(*trained(Autoencoder(vq)))[0]
    terms = [item for (kind, _), item in evidence.items() if kind == "loss-terms"]
    assert [item.commitment for item in terms] == pytest.approx([0.7] * 3, rel=1e-3)


class Summed(ImageTask):
    """The reconstruction summed over the pixels, not averaged."""

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        losses = super().losses(model, batch)
        return Losses(task=losses.task * batch[0].numel(), vq=losses.vq)


@pytest.mark.parametrize(
    ("reduce", "task", "steps", "fires"),
    [
        ("sum", ImageTask, 0, True),
        ("sum", ImageTask, 300, True),
        ("sum", Summed, 300, False),
        ("mean", ImageTask, 0, False),
        ("mean", ImageTask, 300, False),
    ],
)
def test_a_summed_vq_loss_beside_a_mean_task_loss(reduce: str, task: Any, steps: int, fires: bool) -> None:
    model = Autoencoder(Codebook(reduce=reduce))
    evidence, findings = examine(*trained(model, task(model, weight=1.0), steps=steps))
    factor = evidence["loss-terms", "vq"].commitment / 0.25
    assert factor == pytest.approx(DIM if reduce == "sum" else 1.0, rel=0.02)
    # beside a summed task loss a sum is right: at most a note where usage is poor
    told = [finding for finding in findings if finding.severity.label != "note"]
    assert codes(told) == ({"VQ204"} if fires else set())


# --- VQ205 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "weight", "fires"),
    [
        ("vq", 0.25, False),
        ("vq", None, False),
        ("vq", 0.0, True),
        ("detached", 0.25, True),
        ("none", 0.25, True),
    ],
)
@pytest.mark.parametrize("kind", ["euclid", "learnable", "plain"])
def test_a_vq_loss_that_takes_no_part(kind: str, report: str, weight: float | None, fires: bool) -> None:
    model = Autoencoder(Codebook() if kind == "plain" else HEALTHY[kind]())
    _, findings = examine(model, ImageTask(model, weight, report))
    assert ("VQ205" in codes(findings)) is fires


def test_a_layer_without_a_loss_is_not_held_to_have_one() -> None:
    model = Autoencoder(VectorQuantize(**IMAGE, commitment_weight=0.0))
    evidence, findings = examine(model, ImageTask(model))
    assert evidence["loss-use", "vq"].offered == 0
    assert "VQ205" not in codes(findings)


def test_a_vq_loss_inside_the_task_loss_counts_as_used() -> None:
    class Total(ImageTask):
        def losses(self, model: nn.Module, batch: Any) -> Losses:
            losses = super().losses(model, batch)
            return Losses(task=losses.task + 0.25 * losses.vq)

    model = Autoencoder(Codebook())
    evidence, findings = examine(model, Total(model, weight=None))
    assert evidence["loss-use", "vq"].used is True
    assert "VQ205" not in codes(findings)
