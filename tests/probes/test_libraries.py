"""The model's probes on other people's quantizers: usage against a naive count, and the right verdict."""

from __future__ import annotations

import importlib.util
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vector_quantize_pytorch as vqp
from torch import nn
from torch.nn import functional

from vqdoctor.checks import all_checks
from vqdoctor.core.evidence import (
    CodebookGradient,
    DataMatch,
    Evidence,
    GradientPath,
    ImplicitLevels,
    TaskGradient,
    TaskMetrics,
    Unavailable,
    Usage,
)
from vqdoctor.engine.evaluate import evaluate
from vqdoctor.models.untouched import untouched
from vqdoctor.probes import model as model_probes
from vqdoctor.probes.model import ModelContext

_spec = importlib.util.spec_from_file_location("vq_libraries", Path(__file__).with_name("libraries.py"))
assert _spec is not None and _spec.loader is not None
lib = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lib)
CODES, DIM, POSITIONS = lib.CODES, lib.DIM, lib.POSITIONS
KINDS = (GradientPath, TaskGradient, CodebookGradient, Usage, DataMatch, TaskMetrics)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)


def ask(ctx: ModelContext, *kinds: type[Evidence]) -> dict[tuple[type[Evidence], str | None], Any]:
    probes = [probe for probe in model_probes.all_probes() if set(probe.kinds) & set(kinds or KINDS)]
    with untouched(ctx.model, seed=0):
        items = [item for probe in probes for item in probe.measure(ctx)]
    return {
        (Evidence.registry[type(i).kind if isinstance(i, Evidence) else i.kind], i.layer): i for i in items
    }


def vq(**options: Any) -> nn.Module:
    return vqp.VectorQuantize(dim=DIM, codebook_size=CODES, **options)


def rvq(**options: Any) -> nn.Module:
    return vqp.ResidualVQ(dim=DIM, codebook_size=CODES, **options)


def gumbel(hard: bool) -> nn.Module:
    return lib.Classifier(lib.TamingGumbel(12, hard=hard), out=12, shape="bdhw")


def nsvq() -> nn.Module:
    from nsvq import NSVQ

    def flat(layer: nn.Module, z: torch.Tensor) -> tuple[torch.Tensor, None]:
        return layer(z.reshape(-1, DIM))[0].view_as(z), None

    return lib.Classifier(NSVQ(CODES, DIM, verbose=False), flat)


def diffusers() -> nn.Module:
    from diffusers.models.autoencoders.vae import VectorQuantizer

    return lib.Classifier(VectorQuantizer(CODES, DIM, 0.25), shape="bdhw")


HEALTHY = {
    "vqp": (lambda: lib.Classifier(vq()), "rotation"),
    "vqp straight-through": (lambda: lib.Classifier(vq(rotation_trick=False)), "straight-through"),
    "vqp cosine": (lambda: lib.Classifier(vq(use_cosine_sim=True)), "custom"),
    "vqp heads": (
        lambda: lib.Classifier(vq(heads=2, codebook_dim=4, separate_codebook_per_head=True)),
        "custom",
    ),
    "vqp heads that share": (lambda: lib.Classifier(vq(heads=2, codebook_dim=4)), "custom"),
    "vqp learnable": (
        lambda: lib.Classifier(vq(learnable_codebook=True, ema_update=False)),
        "rotation",
    ),
    "vqp orthogonal": (lambda: lib.Classifier(vq(orthogonal_reg_weight=1.0)), "rotation"),
    "vqp projected": (lambda: lib.Classifier(vq(codebook_dim=4)), "custom"),
    "vqp image": (lambda: lib.Classifier(vq(accept_image_fmap=True), shape="bdhw"), "rotation"),
    "vqp image, heads": (
        lambda: lib.Classifier(
            vq(accept_image_fmap=True, heads=2, codebook_dim=4, separate_codebook_per_head=True),
            shape="bdhw",
        ),
        "custom",
    ),
    "vqp channel first": (lambda: lib.Classifier(vq(channel_last=False), shape="bdn"), "rotation"),
    "vqp directional": (
        lambda: lib.Classifier(vq(directional_reparam=True, threshold_ema_dead_code=2)),
        "custom",
    ),
    "vqp stochastic": (lambda: lib.Classifier(vq(stochastic_sample_codes=True)), "rotation"),
    "residual": (lambda: lib.Classifier(rvq(num_quantizers=4)), "rotation"),
    "residual, dropout": (
        lambda: lib.Classifier(rvq(num_quantizers=6, quantize_dropout=True)),
        "rotation",
    ),
    "residual, grouped": (
        lambda: lib.Classifier(
            vqp.GroupedResidualVQ(dim=DIM, codebook_size=CODES, num_quantizers=2, groups=2)
        ),
        "rotation",
    ),
    "simvq": (lambda: lib.Classifier(vqp.SimVQ(dim=DIM, codebook_size=CODES)), "rotation"),
    "residual simvq": (
        lambda: lib.Classifier(vqp.ResidualSimVQ(dim=DIM, codebook_size=CODES, num_quantizers=2)),
        "rotation",
    ),
    "gumbel, soft": (lambda: gumbel(False), "custom"),
    "gumbel, hard": (lambda: gumbel(True), "custom"),
    "nsvq": (nsvq, "custom"),
    "diffusers": (diffusers, "straight-through"),
    "zalando": (lambda: lib.Classifier(lib.ZalandoEMA(), lib.zalando, shape="bdhw"), "straight-through"),
    "rosinality": (lambda: lib.Classifier(lib.Rosinality()), "straight-through"),
    "plain": (lambda: lib.Classifier(lib.PlainVQ()), "straight-through"),
    "plain, channel first": (
        lambda: lib.Classifier(lib.PlainVQ(channel_first=True), shape="bdn"),
        "straight-through",
    ),
    "plain, noise": (lambda: lib.Classifier(lib.PlainVQ("noise")), "custom"),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_quantizer_passes_its_gradient_and_nothing_is_touched(name: str) -> None:
    build, estimator = HEALTHY[name]
    ctx = lib.context(build())
    assert ctx.views
    found = ask(ctx)
    for view in ctx.views:
        path = found[GradientPath, view.name]
        assert isinstance(path, GradientPath), path
        assert path.estimator == estimator
        assert path.ratio > 0.05 and path.zero_share == 0
        task = found[TaskGradient, view.name]
        assert isinstance(task, TaskGradient) and task.at_output and task.at_input > 0.01 * task.at_output
        assert isinstance(found[Usage, view.name], Usage)
        matched = found[DataMatch, view.name]
        assert isinstance(matched, Unavailable if view.lookup == "logits" else DataMatch)
        if view.frozen:
            assert isinstance(found[CodebookGradient, view.name], Unavailable)
        else:
            moved = found[CodebookGradient, view.name]
            assert isinstance(moved, CodebookGradient) and (moved.ema_owned or moved.gradient)
    assert isinstance(found[TaskMetrics, None], TaskMetrics)


@pytest.mark.parametrize("name", HEALTHY)
def test_what_the_keys_give_away_is_not_found_again_by_its_output(name: str) -> None:
    assert lib.context(HEALTHY[name][0]()).discover().views == ()


def accused(ctx: ModelContext) -> list[str]:
    """The codes of the gradient checks that fire."""
    items = ask(ctx, GradientPath, TaskGradient, CodebookGradient).values()
    checks = [check for check in all_checks() if check.code in ("VQ101", "VQ102", "VQ103")]
    found = [item for item in items if isinstance(item, Evidence)]
    gaps = [item for item in items if isinstance(item, Unavailable)]
    return [f.code for f in evaluate(checks, [view.name for view in ctx.views], found, gaps).findings]


@pytest.mark.parametrize("name", HEALTHY)
def test_no_check_calls_a_healthy_path_missing_or_a_codebook_untrained(name: str) -> None:
    assert accused(lib.context(HEALTHY[name][0]())) == []


def test_what_is_missing_is_called_so() -> None:
    assert accused(lib.context(lib.Classifier(lib.PlainVQ("bare")))) == ["VQ101"]
    assert accused(lib.context(lib.Classifier(lib.PlainVQ("not detached")))) == ["VQ101"]
    assert accused(lib.context(lib.Classifier(lib.PlainVQ(), detached))) == ["VQ102"]


def detached(layer: nn.Module, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    z_q, loss, _ = layer(z)
    return z_q.detach(), loss


def codes_of(output: Any, view: Any) -> torch.Tensor:
    """The indices in a layer's output, or the code that each vector of z_q is: one by one, by hand."""
    flat = output if isinstance(output, tuple | list) else (output,)
    nested = [t for item in flat for t in (item if isinstance(item, tuple) else (item,))]
    for tensor in nested:
        if isinstance(tensor, torch.Tensor) and not tensor.is_floating_point():
            return tensor
    (z_q,) = (t for t in nested if isinstance(t, torch.Tensor) and t.ndim == 4)
    vectors = z_q.movedim(1, -1).reshape(-1, view.dim)
    return torch.stack([(torch.from_numpy(view.codebook) - v).norm(dim=1).argmin() for v in vectors])


@pytest.mark.parametrize("name", [n for n in HEALTHY if "residual" not in n and "heads" not in n])
def test_usage_equals_a_naive_count(name: str) -> None:
    model = HEALTHY[name][0]()
    ctx = lib.context(model)
    (view,) = ctx.views
    usage = ask(ctx, Usage)[Usage, view.name]
    outputs: list[Any] = []
    model.eval().vq.register_forward_hook(lambda *args: outputs.append(args[-1]))
    task = lib.ToyTask()
    with torch.no_grad():
        for split in ("train", "val"):
            torch.manual_seed(0)  # taming's Gumbel layer draws in eval mode too
            for x, _ in task.batches(split):
                model(x)
    counts = torch.bincount(torch.cat([codes_of(o, view).flatten() for o in outputs]), minlength=CODES)
    share = counts[counts > 0] / counts.sum()
    assert (usage.used, usage.vectors, usage.groups) == (int((counts > 0).sum()), 2 * 64 * POSITIONS, 128)
    assert usage.plug_in_perplexity == pytest.approx(math.exp(-float((share * share.log()).sum())), rel=1e-5)


def expected_usage(indices: torch.Tensor) -> tuple[int, int]:
    return len(indices.unique()), indices.numel()


def test_heads_and_residual_levels_have_their_own_indices() -> None:
    task = lib.ToyTask()
    x = torch.cat([task.x["train"], task.x["val"]])
    heads = lib.Classifier(vq(heads=2, codebook_dim=4, separate_codebook_per_head=True)).eval()
    found = ask(lib.context(heads), Usage)
    with torch.no_grad():
        indices = heads.vq(heads.encoder(x))[1]
    for head in range(2):
        usage = found[Usage, f"vq[head {head}]"]
        assert (usage.used, usage.vectors) == expected_usage(indices[..., head])
    levels = lib.Classifier(rvq(num_quantizers=6, quantize_dropout=True)).eval()
    found = ask(lib.context(levels), Usage)
    with torch.no_grad():
        indices = levels.vq(levels.encoder(x))[1]
    for level in range(6):
        usage = found[Usage, f"vq.layers.{level}"]
        assert (usage.used, usage.vectors) == expected_usage(indices[..., level])


def test_a_codebook_that_levels_share_is_used_by_all_of_them() -> None:
    model = lib.Classifier(rvq(num_quantizers=3, shared_codebook=True)).eval()
    ctx = lib.context(model)
    (view,) = ctx.views
    assert view.shared_with == ("vq.layers.1", "vq.layers.2")
    usage = ask(ctx, Usage)[Usage, view.name]
    task = lib.ToyTask()
    with torch.no_grad():
        indices = model.vq(model.encoder(torch.cat([task.x["train"], task.x["val"]])))[1]
    assert (usage.used, usage.vectors, usage.groups) == (*expected_usage(indices), 128)


@pytest.mark.parametrize(
    ("estimator", "verdict"),
    [("bare", "none"), ("detached twice", "none"), ("not detached", "zero"), ("scaled", "custom")],
)
def test_what_an_estimator_lacks(estimator: str, verdict: str) -> None:
    path = ask(lib.context(lib.Classifier(lib.PlainVQ(estimator))), GradientPath)[GradientPath, "vq"]
    assert path.estimator == verdict
    assert path.ratio == pytest.approx(0.1 if estimator == "scaled" else 0.0, abs=1e-6)


@pytest.mark.parametrize("estimator", ["bare", "detached twice"])
def test_an_estimator_outside_the_layer_is_not_missing(estimator: str) -> None:
    def outside(layer: nn.Module, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q, loss, _ = layer(z)
        return z + (q - z).detach(), loss

    found = ask(lib.context(lib.Classifier(lib.PlainVQ(estimator), outside)), GradientPath, TaskGradient)
    path, task = found[GradientPath, "vq"], found[TaskGradient, "vq"]
    assert isinstance(path, Unavailable) and "outside the layer" in path.reason
    assert task.at_output == pytest.approx(task.at_input) and task.at_input > 0


def test_a_detach_after_a_healthy_layer_is_the_task_gradients_affair() -> None:
    found = ask(lib.context(lib.Classifier(lib.PlainVQ(), detached)), GradientPath, TaskGradient)
    assert found[GradientPath, "vq"].estimator == "straight-through"
    assert (found[TaskGradient, "vq"].at_output, found[TaskGradient, "vq"].at_input) == (None, 0.0)


def test_a_layer_under_no_grad_is_the_task_gradients_affair() -> None:
    def frozen(layer: nn.Module, z: torch.Tensor) -> tuple[torch.Tensor, None]:
        with torch.no_grad():
            return layer(z)[0], None

    found = ask(lib.context(lib.Classifier(lib.PlainVQ(), frozen)), GradientPath, TaskGradient)
    assert "no_grad" in found[GradientPath, "vq"].reason
    assert found[TaskGradient, "vq"].at_output > 0 and found[TaskGradient, "vq"].at_input == 0
    model = lib.Classifier(lib.PlainVQ(), frozen)
    model.encoder.requires_grad_(False)
    model.vq.requires_grad_(False)
    found = ask(lib.context(model), GradientPath, TaskGradient)  # a second stage on a frozen tokenizer
    assert all(isinstance(item, Unavailable) and "frozen" in item.reason for item in found.values())


def test_a_random_projection_is_frozen_and_used() -> None:
    quantizer = vqp.RandomProjectionQuantizer(dim=3, codebook_size=CODES, codebook_dim=4, num_codebooks=2)
    model = lib.BestRQ(quantizer)
    assert accused(lib.context(model)) == []
    ctx = lib.context(model)
    found = ask(ctx, GradientPath, TaskGradient, CodebookGradient, Usage)
    task = lib.ToyTask()
    indices = quantizer(torch.cat([task.x["train"], task.x["val"]]))
    for head, view in enumerate(ctx.views):
        for kind in (GradientPath, TaskGradient, CodebookGradient):
            assert isinstance(found[kind, view.name], Unavailable)
        usage = found[Usage, view.name]
        assert (usage.used, usage.vectors, usage.groups) == (*expected_usage(indices[..., head]), 128)


def test_affine_codes_are_not_held_against_the_data_as_they_are_stored() -> None:
    """The lookup shifts and scales the codebook to the data: stored rows far away mean nothing."""
    model = lib.Classifier(vq(affine_param=True, learnable_codebook=True, ema_update=False))
    model.encoder.bias.data += 20.0
    with torch.no_grad():
        for _ in range(3):
            model.train()(lib.ToyTask().x["train"])
    found = ask(lib.context(model), DataMatch, Usage)
    assert found[Usage, "vq"].used > 2
    assert isinstance(found[DataMatch, "vq"], Unavailable)
    twin = lib.Classifier(vq(learnable_codebook=True, ema_update=False))
    twin.encoder.bias.data += 20.0
    assert ask(lib.context(twin), DataMatch)[DataMatch, "vq"].mean_offset > 5


def test_a_model_without_a_vq_module_shows_its_codes_at_least() -> None:
    class Inline(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.codebook, self.head = (
                nn.Linear(3, DIM),
                nn.Embedding(CODES, DIM),
                nn.Linear(DIM, 4),
            )

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            z = self.encoder(x)
            indices = torch.cdist(z, self.codebook.weight.expand(len(z), -1, -1)).argmin(-1)
            q = self.codebook(indices)
            loss = functional.mse_loss(z, q.detach())
            return self.head((z + (q - z).detach()).mean(1)), loss

    model = Inline().eval()
    found = ask(lib.context(model))
    assert "itself" in found[GradientPath, "codebook"].reason
    task = lib.ToyTask()
    z = model.encoder(torch.cat([task.x["train"], task.x["val"]])).flatten(0, 1)
    naive = torch.cdist(z, model.codebook.weight).argmin(1)
    assert (found[Usage, "codebook"].used, found[Usage, "codebook"].vectors) == expected_usage(naive)


def test_a_layer_that_is_called_twice_counts_both_calls() -> None:
    def twice(layer: nn.Module, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (one, loss, _), (other, more, _) = layer(z), layer(2 * z)
        return one + other, loss + more

    found = ask(lib.context(lib.Classifier(lib.PlainVQ(), twice)), Usage, GradientPath)
    assert found[GradientPath, "vq"].estimator == "straight-through"
    assert (found[Usage, "vq"].vectors, found[Usage, "vq"].groups) == (2 * 2 * 64 * POSITIONS, 128)


def test_sequences_of_different_lengths_keep_their_samples() -> None:
    class Ragged(lib.ToyTask):
        def batches(self, split: str) -> Any:
            pairs = enumerate(super().batches(split))
            return [(x[:, : POSITIONS - 2 * (i % 2)], y) for i, (x, y) in pairs]

    model = lib.Classifier(lib.PlainVQ())
    usage = ask(lib.context(model, Ragged(model)), Usage)[Usage, "vq"]
    assert (usage.vectors, usage.groups) == (2 * 2 * 16 * (6 + 4), 128)


def test_masked_vectors_have_no_code() -> None:
    def masked(layer: nn.Module, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.ones(z.shape[:2], dtype=torch.bool)
        mask[:, -2:] = False
        z_q, _, loss = layer(z, mask=mask)
        return z_q, loss

    found = ask(lib.context(lib.Classifier(vq(), masked)), Usage, GradientPath)
    assert found[Usage, "vq"].vectors == 2 * 64 * (POSITIONS - 2)
    assert found[GradientPath, "vq"].zero_share == 0  # of the vectors that are data


@pytest.mark.parametrize(("rotation", "estimator"), [(False, "straight-through"), (True, "rotation")])
def test_autocast_is_no_fault(rotation: bool, estimator: str) -> None:
    class Autocast(lib.ToyTask):
        def losses(self, model: nn.Module, batch: Any) -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().losses(model, batch)

    model = lib.Classifier(vq(rotation_trick=rotation))
    found = ask(lib.context(model, Autocast(model)))
    assert found[GradientPath, "vq"].estimator == estimator
    assert isinstance(found[DataMatch, "vq"], DataMatch)


class Audio:
    """Noise through a codec; there are no labels."""

    vq_weight = None

    def __init__(self, model: nn.Module, run: Any) -> None:
        self._model, self._run = model, run
        self._x = torch.randn(8, 1, 640, generator=torch.Generator().manual_seed(0))

    def model(self) -> nn.Module:
        return self._model

    def batches(self, split: str) -> Any:
        return self._x.split(4) if split == "train" else (0.5 * self._x).split(4)

    def losses(self, model: nn.Module, batch: torch.Tensor) -> Any:
        audio, vq_loss = self._run(model, batch)
        size = min(audio.shape[-1], 640)
        loss = functional.mse_loss(audio.reshape(4, -1)[:, :size], batch[:, 0, :size])
        return lib.Losses(task=loss, vq=vq_loss)


def encodec() -> tuple[nn.Module, Any]:
    from transformers import EncodecConfig, EncodecModel

    model = EncodecModel(
        EncodecConfig(
            num_filters=4, codebook_size=CODES, codebook_dim=8, hidden_size=8, num_lstm_layers=1,
            upsampling_ratios=[4, 2], target_bandwidths=[24.0], sampling_rate=24000,
        )
    )  # fmt: skip
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_(std=0.05)
    return model, lambda m, x: (m(x).audio_values, None)


def mimi() -> tuple[nn.Module, Any]:
    from transformers import MimiConfig, MimiModel

    model = MimiModel(
        MimiConfig(
            hidden_size=16, num_filters=4, upsampling_ratios=[4, 2], codebook_size=CODES, codebook_dim=8,
            vector_quantization_hidden_dimension=8, num_quantizers=3, num_semantic_quantizers=1,
            num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=8,
            intermediate_size=16, upsample_groups=16,
        )
    )  # fmt: skip
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):
            buffer.normal_()
    return model, lambda m, x: (m(x, num_quantizers=3).audio_values, None)


@pytest.mark.parametrize("build", [encodec, mimi])
def test_codecs_that_only_encode_and_decode_have_usage_and_no_verdict_on_gradients(build: Any) -> None:
    model, run = build()
    ctx = lib.context(model, Audio(model, run))
    assert ctx.discover().views == ()
    found = ask(ctx)
    asked: dict[int, list[torch.Tensor]] = {}
    for index, view in enumerate(ctx.views):
        for kind in (GradientPath, TaskGradient, CodebookGradient):
            assert "no training path" in found[kind, view.name].reason
        assert isinstance(found[DataMatch, view.name], DataMatch)
        codebook = model.get_submodule(view.keys["codebook"].rpartition(".")[0])
        quantize = codebook.quantize
        codebook.quantize = lambda z, q=quantize, i=index: asked.setdefault(i, []).append(q(z)) or q(z)
    with torch.no_grad():
        for split in ("train", "val"):
            for x in Audio(model, run).batches(split):
                run(model.eval(), x)
    for index, view in enumerate(ctx.views):
        usage = found[Usage, view.name]
        assert (usage.used, usage.vectors) == expected_usage(torch.cat(asked[index]))


def test_dac_is_seen_at_the_codebooks_own_dimension() -> None:
    from transformers import DacConfig, DacModel

    model = DacModel(
        DacConfig(
            encoder_hidden_size=8, downsampling_ratios=[2, 2], decoder_hidden_size=16,
            upsampling_ratios=[2, 2], n_codebooks=3, codebook_size=CODES, codebook_dim=4,
            quantizer_dropout=0.5,
        )
    )  # fmt: skip
    ctx = lib.context(model, Audio(model, lambda m, x: ((out := m(x)).audio_values, out.loss.sum())))
    found = ask(ctx)
    assert len(ctx.views) == 3
    for view in ctx.views:
        assert found[GradientPath, view.name].estimator == "custom"
        assert found[GradientPath, view.name].zero_share == 0
        assert found[DataMatch, view.name].dim == 4
        assert found[DataMatch, view.name].quantization_error < 1
        assert found[Usage, view.name].used > CODES / 2


def test_wav2vec2_has_two_groups_and_another_dimension() -> None:
    from transformers import Wav2Vec2Config
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = Wav2Vec2Config(
                codevector_dim=12, num_codevector_groups=2, num_codevectors_per_group=CODES,
                conv_dim=(DIM,), conv_stride=(1,), conv_kernel=(1,),
            )  # fmt: skip
            self.encoder, self.quantizer = nn.Linear(3, DIM), Wav2Vec2GumbelVectorQuantizer(config)
            nn.init.normal_(self.quantizer.codevectors)
            self.project_q, self.head = nn.Linear(12, DIM), nn.Linear(DIM, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            z_q, perplexity = self.quantizer(self.encoder(x))
            return self.head(self.project_q(z_q).mean(1)), -0.1 * perplexity

    model = Model()
    found = ask(lib.context(model))
    task = lib.ToyTask()
    with torch.no_grad():
        z = model.encoder(torch.cat([task.x["train"], task.x["val"]]))
        indices = model.quantizer.weight_proj(z).unflatten(-1, (2, CODES)).argmax(-1)
    for group in range(2):
        path, usage = (found[kind, f"quantizer[head {group}]"] for kind in (GradientPath, Usage))
        assert (path.estimator, path.cosine) == ("custom", None) and path.ratio > 0.05
        assert (usage.used, usage.vectors) == expected_usage(indices[..., group])
    assert found[TaskMetrics, None].bypass_loss is None


@pytest.mark.parametrize(
    ("build", "codes"),
    [
        (lambda: vqp.FSQ(levels=[8, 5, 5], dim=DIM), 200),
        (lambda: vqp.LFQ(codebook_size=64, dim=DIM), 64),
        (lambda: vqp.LFQ(codebook_size=2**DIM, dim=DIM, spherical=True), 2**DIM),
    ],
    ids=["fsq", "lfq", "bsq"],
)
def test_layers_without_a_codebook(build: Any, codes: int) -> None:
    model = lib.Classifier(build())
    ctx = lib.context(model)
    assert not ctx.views
    with untouched(model, seed=0):
        others = ctx.others(ctx.discover())
        items = [i for probe in model_probes.without_codebook(alone=False) for i in probe.measure(others)]
    found: dict[type, Any] = {type(item): item for item in items if isinstance(item, Evidence)}
    task = lib.ToyTask()
    with torch.no_grad():
        indices = model.eval().vq(model.encoder(torch.cat([task.x["train"], task.x["val"]])))[1]
    usage = found[Usage]
    assert (usage.layer, usage.num_codes, usage.implicit) == ("vq", codes, True)
    assert (usage.used, usage.vectors) == expected_usage(indices)
    assert found[GradientPath].estimator == "custom" and found[GradientPath].ratio > 0.05
    levels = found[ImplicitLevels]
    assert math.prod(levels.levels) == codes and max(levels.used) <= max(levels.levels)
    assert math.prod(levels.used) >= usage.used
    assert all(np.isfinite(levels.edge_share))
