"""Tables that stay as they were initialised, in health: the codebook lies behind their projection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from vector_quantize_pytorch import RandomProjectionQuantizer, ResidualSimVQ, SimVQ, VectorQuantize

from vqdoctor.core.errors import UserError
from vqdoctor.core.levels import Confidence
from vqdoctor.layouts import find_quantizers

K = 16


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Table(nn.Module):
    """A table behind a linear map, under any names; `codebook` is what such models quantize with."""

    def __init__(self, table, projection, dim_in, dim, bias=True):
        super().__init__()
        self.names = table, projection
        self.add_module(table, nn.Embedding(K, dim_in))
        self.add_module(projection, nn.Linear(dim_in, dim, bias=bias))
        getattr(self, table).weight.requires_grad = False

    @property
    def codebook(self):
        table, projection = (getattr(self, name) for name in self.names)
        return projection(table.weight)


def close(view, codebook):
    """As close as one sum of a dozen products in another order may be."""
    np.testing.assert_allclose(view.codebook, codebook.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert view.codebook.dtype == np.float32


@pytest.mark.parametrize("frozen_dim", [None, 5, 12])
def test_simvq(frozen_dim, fake):
    vq = SimVQ(dim=8, codebook_size=K, frozen_codebook_dim=frozen_dim)
    (view,) = find_quantizers(fake(vq.state_dict(), "model.vq.")).views
    assert (view.name, view.layout, view.confidence) == ("vq", "simvq", Confidence.HIGH)
    assert (view.frozen, view.derived, view.num_codes, view.dim) == (True, True, K, 8)
    assert view.keys == {
        "codebook": "model.vq.frozen_codebook",
        "projection": "model.vq.code_transform.weight",
    }
    close(view, vq.codebook)
    x = torch.randn(1, 200, 8)
    _, codes, _ = vq(x)
    distances = ((x[0, :, None].numpy() - view.codebook) ** 2).sum(-1)
    np.testing.assert_array_equal(distances.argmin(1), codes[0].numpy())


def test_training_moves_the_codebook_of_a_simvq_and_never_its_table(fake):
    vq = SimVQ(dim=8, codebook_size=K)
    before = vq.frozen_codebook.clone()
    optimizer = torch.optim.SGD(vq.parameters(), 1.0)
    (view,) = find_quantizers(fake({k: v.clone() for k, v in vq.state_dict().items()})).views
    vq(torch.randn(1, 100, 8))[-1].backward()
    optimizer.step()
    (after,) = find_quantizers(fake(vq.state_dict())).views
    assert torch.equal(before, vq.frozen_codebook)
    assert not np.allclose(view.codebook, after.codebook)
    close(after, vq.codebook)


def test_simvq_with_a_bias(fake):
    vq = SimVQ(dim=8, codebook_size=K, codebook_transform=nn.Linear(8, 8))
    (view,) = find_quantizers(fake(vq.state_dict())).views
    close(view, vq.codebook)


def test_residual_simvq(fake):
    rvq = ResidualSimVQ(dim=8, codebook_size=K, num_quantizers=3)
    views = find_quantizers(fake(rvq.state_dict(), "rvq.")).views
    assert [(v.name, v.layout) for v in views] == [(f"rvq.layers.{q}", "simvq") for q in range(3)]
    for view, level in zip(views, rvq.layers, strict=True):
        close(view, level.codebook)


@pytest.mark.parametrize(
    ("layout", "table", "projection", "dims", "confidence"),
    [
        ("simvq-embedding", "embedding", "embedding_proj", (8, 8), Confidence.MEDIUM),
        ("simvq-embedding", "embedding", "embedding_proj", (8, 5), Confidence.MEDIUM),
        ("vqgan-lc", "tok_embeddings", "codebook_projection", (24, 8), Confidence.HIGH),
        ("optvq", "embedding", "proj", (8, 8), Confidence.LOW),
    ],
)
def test_an_embedding_behind_a_map(layout, table, projection, dims, confidence, fake):
    vq = Table(table, projection, *dims)
    state = vq.state_dict()
    (view,) = find_quantizers(fake(state, "state_dict.quantize.")).views
    assert (view.layout, view.name, view.confidence) == (layout, "quantize", confidence)
    assert (view.frozen, view.derived, view.num_codes, view.dim) == (True, True, K, dims[1])
    close(view, vq.codebook)
    assert set(view.keys.values()) == {f"state_dict.quantize.{key}" for key in state}


def test_a_fork_without_bias(fake):
    vq = Table("embedding", "embedding_proj", 8, 8, bias=False)
    (view,) = find_quantizers(fake(vq.state_dict(), "quantize.")).views
    assert view.layout == "simvq-embedding"
    close(view, vq.codebook)


def test_vqgan_lc_keeps_it_at_the_root(fake):
    vq = Table("tok_embeddings", "codebook_projection", 24, 8)
    (view,) = find_quantizers(fake({"encoder.0.weight": (4, 3, 3, 3)} | vq.state_dict())).views
    assert view.name == "vq"
    close(view, vq.codebook)


def test_the_table_named_by_its_key_is_still_behind_its_map(fake):
    vq = SimVQ(dim=8, codebook_size=K, frozen_codebook_dim=5)
    tensors = fake(vq.state_dict(), "vq.")
    for orientation in (None, "kd"):
        (view,) = find_quantizers(tensors, codebook_key="vq.frozen_codebook", orientation=orientation).views
        assert view.layout == "simvq"
        close(view, vq.codebook)
    (plain,) = find_quantizers(tensors, codebook_key="vq.frozen_codebook", orientation="dk").views
    assert (plain.num_codes, plain.dim, plain.derived) == (5, K, False)


def test_a_quantizer_that_is_trained_is_not_called_frozen(fake):
    for state in (VectorQuantize(dim=8, codebook_size=K).state_dict(), {"quantize.embedding.weight": (K, 8)}):
        (view,) = find_quantizers(fake(state)).views
        assert not view.frozen
        assert not view.derived


@pytest.mark.parametrize("codebooks", [1, 3])
def test_random_projection(codebooks, fake):
    quantizer = RandomProjectionQuantizer(dim=8, codebook_size=K, codebook_dim=4, num_codebooks=codebooks)
    x = torch.randn(1, 200, 8)
    codes = quantizer(x).reshape(200, codebooks)
    views = find_quantizers(fake(quantizer.state_dict(), "tokenizer.")).views
    heads = [f"[head {h}]" for h in range(codebooks)] if codebooks > 1 else [""]
    assert [v.name for v in views] == [f"tokenizer.vq{head}" for head in heads]
    for head, view in enumerate(views):
        assert (view.layout, view.lookup, view.frozen, view.derived) == (
            "random-projection", "cosine", True, False,
        )  # fmt: skip
        assert view.keys["input_projection"] == "tokenizer.rand_projs"
        np.testing.assert_array_equal(view.codebook, quantizer.vq._codebook.embed[head].numpy())
    if codebooks == 1:  # with more, the library puts a random map of its own before the codebook
        z = (quantizer.norm(x) @ quantizer.rand_projs[0])[0].numpy()
        np.testing.assert_array_equal((z @ views[0].codebook.T).argmax(1), codes[:, 0].numpy())


def test_the_librarys_own_quantizer_beside_one_is_not_called_frozen(fake):
    state = {f"tokenizer.{k}": v for k, v in RandomProjectionQuantizer(
        dim=8, codebook_size=K, codebook_dim=4
    ).state_dict().items()}  # fmt: skip
    state |= {f"vq.{k}": v for k, v in VectorQuantize(dim=8, codebook_size=K).state_dict().items()}
    views = find_quantizers(fake(state)).views
    assert [(v.name, v.layout, v.frozen) for v in views] == [
        ("tokenizer.vq", "random-projection", True),
        ("vq", "vector-quantize-pytorch", False),
    ]


def _qinco(first: str, step: str, network: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a chain of three steps, as facebookresearch/Qinco writes them."""
    return {f"{first}.weight": (K, 8)} | {
        f"{step.format(number)}.{name}": shape
        for number in (1, 2)
        for name, shape in {"codebook.weight": (K, 8), network: (8, 16)}.items()
    }


@pytest.mark.parametrize(
    ("first", "step", "network"),
    [
        ("codebook0", "step{}", "MLPconcat.weight"),
        ("steps.0.codebook", "steps.{}", "concat.mlp.weight"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "quantizer."])
def test_codes_that_a_network_makes_anew_are_no_table(fake, first, step, network, prefix):
    names = {prefix + key: shape for key, shape in _qinco(first, step, network).items()}
    views = find_quantizers(fake(names)).views
    told = [(v.name, v.layout, v.frozen, v.lookup) for v in views]
    assert told == [
        (prefix + first.removesuffix(".codebook"), "qinco", False, None),
        *((prefix + step.format(number), "qinco", True, "logits") for number in (1, 2)),
    ]


def test_a_layer_that_is_not_there_is_still_an_error(fake):
    vq = SimVQ(dim=8, codebook_size=K)
    with pytest.raises(UserError, match="no VQ layer 'rvq'"):
        find_quantizers(fake(vq.state_dict(), "vq."), layer="rvq")
