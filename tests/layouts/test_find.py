"""What the user may say of a file: which layer, which key, which orientation."""

from __future__ import annotations

import numpy as np
import pytest
from cost import costs_at_most

from vqdoctor.core.errors import UserError
from vqdoctor.core.levels import Confidence
from vqdoctor.layouts import find_quantizers

CODEC = {
    f"quantizer.layers.{q}._codebook.{name}": shape
    for q in (1, 10)
    for name, shape in {"inited": (1,), "embed": (6, 3), "embed_avg": (6, 3), "cluster_size": (6,)}.items()
} | {"aux.quantize.embedding.weight": (9, 4), "steps": ()}


def names(found):
    return [view.name for view in found.views]


def test_layers_come_in_the_files_order_whatever_their_layout(fake):
    reverse = dict(reversed(CODEC.items()))
    assert names(find_quantizers(fake(CODEC))) == [
        "quantizer.layers.1", "quantizer.layers.10", "aux.quantize",
    ]  # fmt: skip
    assert names(find_quantizers(fake(reverse)))[0] == "aux.quantize"


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("quantizer.layers.1", ["quantizer.layers.1"]),
        ("quantizer", ["quantizer.layers.1", "quantizer.layers.10"]),
        ("module.aux.quantize", ["aux.quantize"]),
    ],
)
def test_a_layer_is_picked(layer, expected, fake):
    assert names(find_quantizers(fake(CODEC, "module."), layer=layer)) == expected


def test_an_unknown_layer_is_the_users_error_and_lists_the_known(fake):
    with pytest.raises(
        UserError, match=r"no VQ layer 'rvq'.*quantizer\.layers\.1, quantizer\.layers\.10, aux"
    ):
        find_quantizers(fake(CODEC), layer="rvq")
    with pytest.raises(UserError, match="none was recognised"):
        find_quantizers(fake({"fc.weight": (3, 3)}), layer="vq")


@pytest.mark.parametrize("key", ["state_dict.model.tok.table", "tok.table"])
def test_a_key_is_taken_for_the_codebook(key, fake):
    tensors = fake({"tok.table": (16, 4), "tok.cluster_size": (16,), **CODEC}, "state_dict.model.")
    (view,) = find_quantizers(tensors, codebook_key=key).views
    assert (view.name, view.num_codes, view.dim, view.confidence) == ("tok", 16, 4, Confidence.HIGH)
    np.testing.assert_array_equal(view.codebook, tensors["state_dict.model.tok.table"].values)
    np.testing.assert_array_equal(view.counts, tensors["state_dict.model.tok.cluster_size"].values)
    assert view.keys["codebook"] == "state_dict.model.tok.table"


def test_a_key_that_a_layout_knows_keeps_its_layout(fake):
    (view,) = find_quantizers(fake(CODEC), codebook_key="quantizer.layers.10._codebook.embed").views
    assert (view.name, view.layout) == ("quantizer.layers.10", "encodec")


def test_a_key_with_heads(fake):
    tensors = fake({"heads.table": (2, 16, 4)})
    views = find_quantizers(tensors, codebook_key="heads.table").views
    assert [v.name for v in views] == ["heads[head 0]", "heads[head 1]"]
    np.testing.assert_array_equal(views[1].codebook, tensors["heads.table"].values[1])


def test_a_key_at_the_root_has_a_name(fake):
    (view,) = find_quantizers(fake({"table": (16, 4)}), codebook_key="table").views
    assert view.name == "vq"


def test_the_users_orientation_of_a_key(fake):
    tensors = fake({"tok.table": (16, 4)})
    (view,) = find_quantizers(tensors, codebook_key="tok.table", orientation="dk").views
    assert (view.num_codes, view.dim) == (4, 16)
    np.testing.assert_array_equal(view.codebook, tensors["tok.table"].values.T)
    (view,) = find_quantizers(fake({"quantize.embedding.weight": (16, 4)}), orientation="dk").views
    assert (view.num_codes, view.dim) == (4, 16)


def test_an_orientation_against_the_counts(fake):
    """Said of a key it is an error; said of a whole file it is meant for the layers that leave it open."""
    tensors = fake({"tok.table": (16, 4), "tok.cluster_size": (16,)})
    with pytest.raises(UserError, match="has 16 codes, so it is not 'dk'"):
        find_quantizers(tensors, codebook_key="tok.table", orientation="dk")
    both = find_quantizers(fake(CODEC), orientation="dk").views
    assert [(v.num_codes, v.dim) for v in both] == [(6, 3), (6, 3), (4, 9)]


def test_an_unknown_key_names_the_closest(fake):
    with pytest.raises(UserError, match=r"closest are aux\.quantize\.embedding\.weight"):
        find_quantizers(fake(CODEC), codebook_key="aux.quantise.embedding.weights")


@pytest.mark.parametrize(
    ("key", "shape"), [("steps", "[]"), ("quantizer.layers.1._codebook.cluster_size", "[6]")]
)
def test_a_key_of_no_matrix_is_the_users_error(key, shape, fake):
    with pytest.raises(UserError, match="not a codebook") as error:
        find_quantizers(fake(CODEC), codebook_key=key)
    assert shape in str(error.value)


def test_two_layers_of_one_module_have_names_that_differ(fake):
    shapes = {"vq.embedding.weight": (9, 4), "vq.codebook.weight": (8, 4), "vq.codes": (7, 4)}
    found = names(find_quantizers(fake(shapes)))
    assert len(found) == len(set(found)) == 3


def test_heads_of_two_layers_of_one_module_have_names_that_differ(fake):
    one = {"initted": (1,), "embed": (2, 6, 3), "embed_avg": (2, 6, 3), "cluster_size": (2, 6)}
    shapes = {f"vq._codebook.{key}": shape for key, shape in one.items()}
    shapes |= {"vq.embedding": (2, 6, 3), "vq.ema_count": (2, 6)}
    found = find_quantizers(fake(shapes))
    assert names(found) == ["vq[head 0]", "vq[head 1]", "vq.embedding[head 0]", "vq.embedding[head 1]"]


def test_hundreds_of_thousands_of_keys_are_no_burden(fake):
    """Linear: a file of 10 times the keys may take 10 times as long, and the whole stays in seconds."""
    shapes = {f"layers.{i}.mlp.{part}.weight": (4, 4) for i in range(25_000) for part in "abcd"}
    tensors = fake({"vq.embedding": (12, 5), "vq.ema_cluster_size": (12,), "vq.ema_embedding_sum": (12, 5)})
    one = next(iter(fake({"x": (4, 4)}).values()))
    tensors |= dict.fromkeys(shapes, one)
    found: list[str] = []
    costs_at_most(10, lambda: found.extend(names(find_quantizers(tensors, layer="vq"))))
    assert set(found) == {"vq"}
    assert one.reads == 0


@pytest.mark.parametrize("levels", ["vq.levels", "quantizer.layers", "rq.vq_stages.stages"])
def test_the_levels_of_a_users_own_stack_are_found(levels, fake):
    shapes = {f"{levels}.{q}.embedding.weight": (16, 4) for q in range(3)}
    assert names(find_quantizers(fake(shapes))) == [f"{levels}.{q}" for q in range(3)]


@pytest.mark.parametrize("path", ["vqgan.encoder.layers.0", "model.layers.0", "vqgan.blocks.0"])
def test_an_embedding_in_another_list_of_layers_is_no_level(path, fake):
    assert names(find_quantizers(fake({f"{path}.embedding.weight": (16, 4)}))) == []


def test_tensors_that_are_not_read_are_named_where_they_have_a_codebooks_name(fake):
    skipped = {
        "model.vq.embedding": "its type is not read",
        "model.quantize.codebook.weight": "its type is not read",
        "encoder.0.weight": "its type is not read",
        "model.tok_embeddings.weight": "its type is not read",
        "optimizer.state.vq.embedding.exp_avg": "its type is not read",
    }
    found = find_quantizers(fake({"encoder.1.weight": (4, 4)}), skipped=skipped)
    assert found.unread == (
        "model.vq.embedding: its type is not read", "model.quantize.codebook.weight: its type is not read",
    )  # fmt: skip
