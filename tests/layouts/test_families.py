"""Small modules with each family's own keys: what they quantize with is what a view must show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts import find_quantizers

K, D = 12, 5


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Buffers(nn.Module):
    """A module of random buffers, by name and shape; a tensor is taken as it is."""

    def __init__(self, **buffers):
        super().__init__()
        for name, value in buffers.items():
            self.register_buffer(name, torch.rand(value) if isinstance(value, tuple) else value)


class Holder(nn.Module):
    """A module of named children."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


def the_view(fake, model, **options):
    (view,) = find_quantizers(fake(model.state_dict()), **options).views
    return view


def assert_ema(view, codebook, counts, sums):
    np.testing.assert_array_equal(view.codebook, codebook.detach().numpy())
    np.testing.assert_array_equal(view.counts, counts.detach().numpy())
    np.testing.assert_array_equal(view.sums, sums.detach().numpy())


def test_reference(fake):
    vq = Buffers(embedding=(K, D), ema_cluster_size=torch.ones(K), ema_embedding_sum=(K, D))
    view = the_view(fake, Holder(encoder=nn.Conv2d(1, 5, 3), vq=vq, head=nn.Linear(5, 10)))
    assert (view.name, view.layout, view.confidence) == ("vq", "reference", Confidence.HIGH)
    assert (view.start_count, view.smoothing, view.default_decay) == (1.0, 1e-5, 0.99)
    assert_ema(view, vq.embedding, vq.ema_cluster_size, vq.ema_embedding_sum)
    assert view.keys == {
        "codebook": "vq.embedding",
        "counts": "vq.ema_cluster_size",
        "sums": "vq.ema_embedding_sum",
    }


def test_reference_at_the_root(fake):
    view = the_view(fake, Buffers(embedding=(K, D), ema_cluster_size=(K,), ema_embedding_sum=(K, D)))
    assert view.name == "vq"


@pytest.mark.parametrize(("inner", "layout"), [("_codebook", "encodec"), ("codebook", "hf-encodec")])
def test_encodec(inner, layout, fake):
    levels = [
        Buffers(inited=torch.ones(1), cluster_size=(K,), embed=(K, D), embed_avg=(K, D)) for _ in range(2)
    ]
    rvq = Holder(layers=nn.ModuleList(Holder(**{inner: level}) for level in levels))
    found = find_quantizers(fake(Holder(quantizer=rvq).state_dict()))
    assert [(v.name, v.layout) for v in found.views] == [
        ("quantizer.layers.0", layout),
        ("quantizer.layers.1", layout),
    ]
    for view, level in zip(found.views, levels, strict=True):
        assert_ema(view, level.embed, level.cluster_size, level.embed_avg)
        assert (view.initted, view.start_count, view.default_decay) == (True, 0.0, 0.99)


class Zalando(nn.Module):
    """As in the notebook, with one EMA update."""

    def __init__(self, decay=0.99, epsilon=1e-5):
        super().__init__()
        self._embedding = nn.Embedding(K, D)
        self.register_buffer("_ema_cluster_size", torch.zeros(K))
        self._ema_w = nn.Parameter(torch.randn(K, D))
        self.decay, self.epsilon = decay, epsilon

    @torch.no_grad()
    def update(self, x, indices):
        hot = nn.functional.one_hot(indices, K).float()
        size = self._ema_cluster_size * self.decay + (1 - self.decay) * hot.sum(0)
        n = size.sum()
        self._ema_cluster_size = (size + self.epsilon) / (n + K * self.epsilon) * n
        self._ema_w = nn.Parameter(self._ema_w * self.decay + (1 - self.decay) * hot.T @ x)
        self._embedding.weight = nn.Parameter(self._ema_w / self._ema_cluster_size.unsqueeze(1))


def test_zalando_ema_needs_no_second_smoothing(fake):
    vq = Zalando()
    vq.update(torch.randn(100, D), torch.arange(100) % K)
    view = the_view(fake, Holder(_vq_vae=vq))
    assert (view.name, view.layout) == ("_vq_vae", "zalando-ema")
    assert_ema(view, vq._embedding.weight, vq._ema_cluster_size, vq._ema_w)
    assert view.smoothing == 0.0
    np.testing.assert_allclose(view.sums / view.counts[:, None], view.codebook, rtol=1e-5)


class Rosinality(nn.Module):
    """As in vqvae.py: the codebook's columns are the codes."""

    def __init__(self, dim, n_embed):
        super().__init__()
        embed = torch.randn(dim, n_embed)
        self.register_buffer("embed", embed)
        self.register_buffer("cluster_size", torch.zeros(n_embed))
        self.register_buffer("embed_avg", embed.clone() + 1)

    def embed_code(self, indices):
        return nn.functional.embedding(indices, self.embed.transpose(0, 1))


@pytest.mark.parametrize(("dim", "codes"), [(5, 12), (12, 5), (8, 8)])
def test_rosinality_codes_are_columns(dim, codes, fake):
    vq = Rosinality(dim, codes)
    view = the_view(fake, Holder(quantize_t=vq))
    assert (view.name, view.layout, view.num_codes, view.dim) == ("quantize_t", "rosinality", codes, dim)
    assert view.confidence is (Confidence.MEDIUM if dim == codes else Confidence.HIGH)
    np.testing.assert_array_equal(view.codebook, vq.embed_code(torch.arange(codes)).numpy())
    np.testing.assert_array_equal(view.sums, vq.embed_avg.T.numpy())


def test_the_user_decides_a_square_codebook(fake):
    vq = Rosinality(8, 8)
    view = the_view(fake, Holder(quantize=vq), orientation="kd")
    np.testing.assert_array_equal(view.codebook, vq.embed.numpy())
    assert view.confidence is Confidence.HIGH
    view = the_view(fake, Holder(quantize=vq), orientation="dk")
    np.testing.assert_array_equal(view.codebook, vq.embed.T.numpy())


def test_rosinalitys_names_with_codes_as_rows(fake):
    vq = Buffers(embed=(K, D), cluster_size=(K,), embed_avg=(K, D))
    view = the_view(fake, Holder(quantize=vq))
    assert (view.layout, view.num_codes, view.dim) == ("ema-guess", K, D)
    assert_ema(view, vq.embed, vq.cluster_size, vq.embed_avg)


class EmaEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(K, D), requires_grad=False)
        self.cluster_size = nn.Parameter(torch.zeros(K), requires_grad=False)
        self.embed_avg = nn.Parameter(torch.rand(K, D), requires_grad=False)


def test_taming_ema(fake):
    embedding = EmaEmbedding()
    view = the_view(fake, Holder(quantize=Holder(embedding=embedding)))
    assert (view.name, view.layout) == ("quantize", "taming-ema")
    assert_ema(view, embedding.weight, embedding.cluster_size, embedding.embed_avg)


def test_beit_keeps_its_living_counts_elsewhere(fake):
    quantize = Buffers(cluster_size=torch.arange(K).float())
    quantize.embedding = EmaEmbedding()
    view = the_view(fake, Holder(quantize=quantize))
    np.testing.assert_array_equal(view.counts, np.arange(K))
    np.testing.assert_array_equal(view.codebook, quantize.embedding.weight.numpy())
    assert view.sums is None
    assert view.name == "quantize"


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("quantize.embedding", "quantize"),
        ("first_stage_model.quantize.embedding", "first_stage_model.quantize"),
        ("model.vqmodel.quantize.embedding", "vqmodel.quantize"),
        ("quantizer.embedding", "quantizer"),
        ("vq.embedding", "vq"),
        ("_vq_vae._embedding", "_vq_vae"),
        ("vector_quantization.embedding", "vector_quantization"),
        ("quantizer.quantizer_modules2.3.embedding", "quantizer.quantizer_modules2.3"),
    ],
)
def test_embedding_by_its_path(path, layer, fake):
    table = nn.Embedding(K, D)
    entries = {"model.encoder.conv.weight": (8, 3, 3, 3), f"{path}.weight": table.weight}
    if not path.startswith("model."):
        entries = {key.removeprefix("model."): value for key, value in entries.items()}
    (view,) = find_quantizers(fake(entries)).views
    assert (view.name, view.layout, view.confidence) == (layer, "embedding", Confidence.MEDIUM)
    np.testing.assert_array_equal(view.codebook, table.weight.detach().numpy())
    assert view.counts is None
    assert view.sums is None


def test_an_embedding_wider_than_long_still_has_its_codes_as_rows(fake):
    (view,) = find_quantizers(fake({"quantize.embedding.weight": (16, 256)})).views
    assert (view.num_codes, view.dim) == (16, 256)


def test_rq_vaes_padding_row_is_no_code(fake):
    entries = {
        "quantizer.codebooks.0.weight": (K + 1, D),
        "quantizer.codebooks.0.cluster_size_ema": (K,),
        "quantizer.codebooks.0.embed_ema": (K, D),
    }
    tensors = fake(entries)
    (view,) = find_quantizers(tensors).views
    assert (view.num_codes, view.layout, view.confidence) == (K, "ema-guess", Confidence.MEDIUM)
    np.testing.assert_array_equal(view.codebook, tensors["quantizer.codebooks.0.weight"].values[:-1])
    np.testing.assert_array_equal(view.sums, tensors["quantizer.codebooks.0.embed_ema"].values)


def test_ema_guess_of_grouped_codebooks(fake):
    """bshall's VectorQuantizedVAE: one codebook for each of N latents."""
    entries = {
        "codebook.embedding": (2, K, D),
        "codebook.ema_count": (2, K),
        "codebook.ema_weight": (2, K, D),
    }
    tensors = fake(entries)
    views = find_quantizers(tensors).views
    assert [(v.name, v.num_codes, v.dim) for v in views] == [
        ("codebook[head 0]", K, D),
        ("codebook[head 1]", K, D),
    ]
    np.testing.assert_array_equal(views[1].codebook, tensors["codebook.embedding"].values[1])
    np.testing.assert_array_equal(views[1].counts, tensors["codebook.ema_count"].values[1])


def test_ema_guess_of_other_names(fake):
    view, *rest = find_quantizers(
        fake({"codebook.embeddings": (K, D), "codebook.N": (K,), "codebook.z_avg": (K, D)})
    ).views
    assert (view.name, view.layout, view.confidence, rest) == (
        "codebook", "ema-guess", Confidence.MEDIUM, [],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "layer"),
    [
        ("generator.quantizer._codebook.weight", "quantizer"),
        ("vqvae.quantizer.codebook", "vqvae.quantizer"),
        ("bottleneck.level_blocks.0.k", "bottleneck.level_blocks.0"),
        ("codebook", "vq"),
        ("quantize.embed.weight", "quantize"),
    ],
)
def test_a_guess_by_name_is_of_low_confidence(key, layer, fake):
    (view,) = find_quantizers(fake({key: (K, D)})).views
    assert (view.name, view.layout, view.confidence) == (layer, "path-guess", Confidence.LOW)


def test_half_precision_is_widened(fake):
    codebook = np.linspace(-1, 1, K * D, dtype=np.float16).reshape(K, D)
    (view,) = find_quantizers(fake({"quantize.embedding.weight": codebook})).views
    assert view.codebook.dtype == np.float32
    np.testing.assert_array_equal(view.codebook, codebook.astype(np.float32))
