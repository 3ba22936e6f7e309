"""Models of transformers, diffusers and nsvq, from small configs: the modules themselves are the oracle.

The libraries are imported here at once and not skipped where missing: they belong to the `dev` extra.
"""

from __future__ import annotations

import logging

import nsvq
import numpy as np
import pytest
import torch
from diffusers import VQModel
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
    Wav2Vec2Config,
    Wav2Vec2ForPreTraining,
)

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts import find_quantizers

K, D = 16, 4


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)


def views_of(model, fake):
    return find_quantizers(fake(model.state_dict())).views


def chosen(view, vectors):
    """The codes that a view's rows give [N, D] vectors, by the view's own rule: one vector at a time."""
    rows = view.codebook.astype(np.float64)
    codes = []
    for vector in vectors.detach().numpy().astype(np.float64):
        if view.lookup == "cosine":
            codes.append(np.argmax(rows @ vector / np.linalg.norm(rows, axis=1)))
        else:
            codes.append(np.argmin(((rows - vector) ** 2).sum(1)))
    return np.array(codes)


def test_encodec(fake):
    model = EncodecModel(
        EncodecConfig(
            num_filters=4,
            hidden_size=D,
            codebook_size=K,
            codebook_dim=D,
            num_lstm_layers=1,
            upsampling_ratios=[2, 2],
            target_bandwidths=[48.0],
        )
    )
    levels = [layer.codebook for layer in model.quantizer.layers]
    for level in levels:
        level.embed.normal_()
        level.cluster_size.uniform_(1, 9)
    views = views_of(model, fake)
    assert [(v.name, v.layout) for v in views] == [
        (f"quantizer.layers.{q}", "hf-encodec") for q in range(len(levels))
    ]
    assert len(views) > 1
    for view, level in zip(views, levels, strict=True):
        assert view.codebook.shape == (K, D)
        np.testing.assert_array_equal(view.codebook, level.embed.numpy())
        np.testing.assert_array_equal(view.counts, level.cluster_size.numpy())
        x = torch.randn(200, D)
        np.testing.assert_array_equal(chosen(view, x), level.encode(x).numpy())


@pytest.fixture
def mimi():
    model = MimiModel(
        MimiConfig(
            num_filters=4,
            hidden_size=16,
            codebook_size=K,
            codebook_dim=D,
            vector_quantization_hidden_dimension=D,
            num_quantizers=3,
            num_semantic_quantizers=1,
            upsampling_ratios=[2, 2],
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=16,
            upsample_groups=16,
        )
    )
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):
            buffer.normal_()
        elif name.endswith("cluster_usage"):
            buffer.uniform_(0.1, 9)
            buffer[3] = 0.0
    return model


def mimi_levels(model):
    rvqs = (
        model.quantizer.semantic_residual_vector_quantizer,
        model.quantizer.acoustic_residual_vector_quantizer,
    )
    return [layer.codebook for rvq in rvqs for layer in rvq.layers]


def test_mimi_stores_no_codebook(mimi, fake):
    views, levels = views_of(mimi, fake), mimi_levels(mimi)
    assert [v.name for v in views] == [
        "quantizer.semantic_residual_vector_quantizer.layers.0",
        "quantizer.acoustic_residual_vector_quantizer.layers.0",
        "quantizer.acoustic_residual_vector_quantizer.layers.1",
    ]
    for view, level in zip(views, levels, strict=True):
        assert (view.layout, view.confidence, view.derived, view.frozen) == (
            "mimi", Confidence.HIGH, True, False,
        )  # fmt: skip
        assert (view.num_codes, view.dim, view.initted) == (K, D, True)
        np.testing.assert_array_equal(view.codebook, level.embed.numpy())
        np.testing.assert_array_equal(view.counts, level.cluster_usage.numpy())
        np.testing.assert_array_equal(view.sums, level.embed_sum.numpy())
        x = 3 * torch.randn(200, D)
        np.testing.assert_array_equal(chosen(view, x), level.encode(x).numpy())
    fresh = MimiModel(mimi.config).quantizer.semantic_residual_vector_quantizer.layers[0].codebook
    assert set(fresh.cluster_usage.tolist()) == {views[0].start_count}


@pytest.mark.parametrize(
    ("flag", "usage", "sums"),
    [
        ("_initialized", "cluster_usage", "embedding_sum"),
        ("inited", "cluster_size", "embed_avg"),
        ("inited", "cluster_size", "embed_sum"),
    ],
)
def test_moshi_names_the_same_otherwise(flag, usage, sums, mimi, fake):
    level = mimi_levels(mimi)[1]
    entries = {flag: level.initialized, usage: level.cluster_usage, sums: level.embed_sum}
    prefix = "quantizer.rvq_rest.vq.layers.0"
    (view,) = find_quantizers(fake(entries, f"{prefix}._codebook.")).views
    assert (view.name, view.layout) == (prefix, "mimi")
    np.testing.assert_array_equal(view.codebook, level.embed.numpy())
    stored = find_quantizers(fake({**entries, "embed": (K, D)}, f"{prefix}._codebook.")).views
    assert [v.layout for v in stored] != ["mimi"], "a stored codebook is not computed a second time"


@pytest.fixture
def dac():
    config = DacConfig(
        encoder_hidden_size=8,
        decoder_hidden_size=16,
        downsampling_ratios=[2, 2],
        upsampling_ratios=[2, 2],
        n_codebooks=3,
        codebook_size=K,
        codebook_dim=D,
    )
    return DacModel(config)


def assert_dac(views, quantizers):
    assert [v.name for v in views] == [f"quantizer.quantizers.{q}" for q in range(len(quantizers))]
    for view, level in zip(views, quantizers, strict=True):
        assert (view.layout, view.confidence, view.lookup) == ("dac", Confidence.HIGH, "cosine")
        np.testing.assert_array_equal(view.codebook, level.codebook.weight.detach().numpy())
        latents = torch.randn(1, D, 300)
        _, codes = level.decode_latents(latents)
        np.testing.assert_array_equal(chosen(view, latents[0].T), codes[0].numpy())


def test_dac(dac, fake):
    assert_dac(views_of(dac, fake), dac.quantizer.quantizers)


def test_dac_with_weight_norm(dac, fake):
    """As SNAC writes its maps, and, under the old names, as DAC itself does."""
    for level in dac.quantizer.quantizers:
        weight_norm(level.in_proj)
        weight_norm(level.out_proj)
    state = dac.state_dict()
    assert "quantizer.quantizers.0.in_proj.parametrizations.weight.original1" in state
    assert_dac(find_quantizers(fake(state)).views, dac.quantizer.quantizers)
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    renamed = {}
    for key, value in state.items():
        for new, name in old.items():
            key = key.replace(new, name)
        renamed[key] = value
    assert_dac(find_quantizers(fake(renamed)).views, dac.quantizer.quantizers)


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_wav2vec2(groups, fake):
    model = Wav2Vec2ForPreTraining(
        Wav2Vec2Config(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            conv_dim=[16, 16],
            conv_stride=[2, 2],
            conv_kernel=[3, 3],
            num_feat_extract_layers=2,
            num_codevectors_per_group=10,
            num_codevector_groups=groups,
            codevector_dim=4 * groups,
            proj_codevector_dim=6,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        )
    )
    nn.init.normal_(model.quantizer.codevectors)
    views = views_of(model, fake)
    heads = [f"[head {g}]" for g in range(groups)] if groups > 1 else [""]
    assert [v.name for v in views] == [f"quantizer{head}" for head in heads]
    assert {(v.layout, v.confidence, v.lookup, v.num_codes, v.dim) for v in views} == {
        ("wav2vec2", Confidence.HIGH, "logits", 10, 4)
    }
    # Its output is one row of each group, side by side; which ones, it says through its logits.
    hidden = torch.randn(1, 300, 16)
    output, _ = model.quantizer.eval()(hidden)
    picks = model.quantizer.weight_proj(hidden).view(300, groups, 10).argmax(-1)
    rows = [view.codebook[picks[:, g].numpy()] for g, view in enumerate(views)]
    np.testing.assert_array_equal(np.concatenate(rows, axis=1), output[0].detach().numpy())


def test_diffusers_vq_model(fake):
    model = VQModel(
        block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, num_vq_embeddings=K, latent_channels=3
    )
    (view,) = views_of(model, fake)
    assert (view.name, view.layout, view.num_codes, view.dim) == ("quantize", "embedding", K, 3)
    np.testing.assert_array_equal(view.codebook, model.quantize.embedding.weight.detach().numpy())
    z = torch.randn(2, 3, 5, 5) / K
    _, _, (_, _, codes) = model.quantize(z)
    flat = z.permute(0, 2, 3, 1).reshape(-1, 3)
    np.testing.assert_array_equal(chosen(view, flat), codes.numpy())


def test_nsvq(fake):
    vq = nsvq.NSVQ(num_embeddings=K, embedding_dim=D, verbose=False)
    z = torch.randn(100, D) / K
    _, codes, _ = vq(z)
    (view,) = find_quantizers(fake(vq.state_dict(), "vq.")).views
    assert (view.name, view.layout, view.confidence) == ("vq", "nsvq", Confidence.HIGH)
    np.testing.assert_array_equal(view.codebook, vq.codebook.detach().numpy())
    np.testing.assert_array_equal(chosen(view, z), codes.numpy())
    assert view.counts is None, "its usage counts batches, and is set back to zero"


@pytest.mark.parametrize("kind", [nsvq.ResidualNSVQ, nsvq.ProductNSVQ])
def test_nsvq_of_several_codebooks(kind, fake):
    vq = kind(num_embeddings=K, embedding_dim=6, num_codebooks=3, verbose=False)
    views = find_quantizers(fake(vq.state_dict(), "net.quantizer.")).views
    assert [v.name for v in views] == [f"quantizer[head {q}]" for q in range(3)]
    for view, codebook in zip(views, vq.codebook, strict=True):
        assert (view.layout, view.num_codes, view.dim) == ("nsvq", *codebook.shape)
        np.testing.assert_array_equal(view.codebook, codebook.detach().numpy())


def test_nsvq_of_its_authors_earlier_code_has_a_name_alone(fake):
    tensors = fake({"vq.codebooks": (K, D), "vq.project_in.weight": (D, 32)})
    (view,) = find_quantizers(tensors).views
    assert (view.name, view.layout, view.confidence) == ("vq", "nsvq", Confidence.MEDIUM)
    np.testing.assert_array_equal(view.codebook, tensors["vq.codebooks"].values)
