"""Layers whose names leave something open: the relation of their tensors decides it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from vector_quantize_pytorch import ResidualVQ

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.core.levels import Confidence
from vqdoctor.core.settings import Settings
from vqdoctor.engine.repair import repair_file
from vqdoctor.layouts import find_quantizers
from vqdoctor.layouts.stacks import stacks

K, D = 32, 6


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def square(rows):
    """A square EMA layer, by rosinality's names, whose codes are rows or columns."""
    codes, counts = torch.randn(K, K), torch.rand(K) * 50 + 1
    return {
        "quantize.embed": codes,
        "quantize.cluster_size": counts,
        "quantize.embed_avg": codes * (counts[:, None] if rows else counts[None, :]),
    }


@pytest.mark.parametrize(
    ("rows", "layout", "confidence"),
    [(False, "rosinality", Confidence.HIGH), (True, "ema-guess", Confidence.MEDIUM)],
)
def test_the_sums_of_a_square_codebook_tell_rows_from_columns(rows, layout, confidence, fake):
    state = square(rows)
    (view,) = find_quantizers(fake(state)).views
    assert (view.layout, view.confidence) == (layout, confidence)
    np.testing.assert_allclose(view.sums / view.counts[:, None], view.codebook, rtol=1e-4)


@pytest.mark.parametrize("rows", [False, True])
def test_the_user_has_the_last_word_on_a_square_codebook(rows, fake):
    state = square(rows)
    (view,) = find_quantizers(fake(state), orientation="kd").views
    np.testing.assert_array_equal(view.codebook, state["quantize.embed"].numpy())


def test_the_width_of_the_model_tells_columns_without_counts(fake):
    around = {"encoder.weight": torch.randn(16, 3, 4, 4), "decoder.weight": torch.randn(3, 16, 4, 4)}
    (view,) = find_quantizers(fake({**around, "quantize.embed": torch.randn(16, 512)})).views
    assert (view.num_codes, view.dim, view.confidence) == (512, 16, Confidence.LOW)
    wide = {"encoder.weight": torch.randn(512, 3, 4, 4), "quantize.embed": torch.randn(16, 512)}
    (view,) = find_quantizers(fake(wide)).views
    assert (view.num_codes, view.dim) == (16, 512)
    (view,) = find_quantizers(fake({"quantize.embed": torch.randn(16, 512)})).views
    assert (view.num_codes, view.dim) == (16, 512)


def test_a_teacher_with_the_students_keys_is_its_running_average(fake):
    student = {"encoder.weight": torch.randn(D, 3), "quantize.embedding.weight": torch.randn(K, D)}
    both = {f"{who}.{key}": value for who in ("teacher", "student") for key, value in student.items()}
    found = find_quantizers(fake(both))
    assert [view.name for view in found.views] == ["student.quantize"]
    assert any("running average" in note for note in found.notes)
    other = {**both, "teacher.head.weight": torch.randn(10, D)}
    names = {view.name for view in find_quantizers(fake(other)).views}
    assert names == {
        "student.quantize",
        "teacher.quantize",
    }  # a teacher of another make is a model of its own


def test_the_current_model_is_judged_beside_the_best_one(fake):
    table = {"quantize.embedding.weight": torch.randn(K, D)}
    both = {f"{which}_model_state.{k}": v for which in ("current", "best") for k, v in table.items()}
    found = find_quantizers(fake({**both, "epoch": torch.tensor(3)}))
    assert [(v.name, v.keys["codebook"]) for v in found.views] == [
        ("quantize", "current_model_state.quantize.embedding.weight")
    ]


def test_a_table_of_all_signs_is_no_codebook(fake):
    signs = (torch.randint(0, 2, (1024, 10)) * 2 - 1).float()
    found = find_quantizers(
        fake({"quantize.codebook": signs, "quantize.bits_to_indices": 2 ** torch.arange(10)})
    )
    assert found.views == () and "lookup-free quantizer of 10 bits" in found.notes[0]


@pytest.mark.parametrize(
    ("codes", "counts", "sums"),
    [
        ("codes", "cluster_size", "codes_avg"),  # NeMo
        ("embeddings", "ema_cluster_size.average", "ema_dw.average"),  # sonnet's ports
        ("w.weight", "ema_cluster_size", "ema_w"),
        ("cb", "ema_cluster_size", "ema_embed_avg"),
        ("w_embedding", "cluster_size", "cluster_sum"),
        ("CB", "ema_cluster_size", "ema_cluster_sum"),
        ("centroids", "ema_count", "_ema_weight"),
    ],
)
def test_names_of_home_made_ema_layers(codes, counts, sums, fake):
    state = {codes: torch.randn(K, D), counts: torch.rand(K), sums: torch.randn(K, D)}
    (view,) = find_quantizers(fake({f"quantizer.{key}": value for key, value in state.items()})).views
    assert (view.name, view.layout, view.num_codes, view.dim) == ("quantizer", "ema-guess", K, D)
    assert {"codebook", "counts", "sums"} == set(view.keys)


def test_an_embedding_in_a_list_of_other_layers_is_no_level(fake):
    state = {f"layers.{i}.embedding.weight": torch.randn(K, D) for i in range(2)}
    assert find_quantizers(fake(state)).views == ()
    state |= {"encoder.mlp.0.weight": torch.randn(D, 9), "decoder.mlp.0.weight": torch.randn(9, D)}
    assert len(find_quantizers(fake(state)).views) == 2
    transformer = {**state, "layers.0.attn.weight": torch.randn(D, D)}
    assert find_quantizers(fake(transformer)).views == ()


def test_a_repair_writes_every_copy_of_a_shared_codebook(tmp_path):
    rvq = ResidualVQ(dim=8, codebook_size=K, num_quantizers=3, shared_codebook=True)
    codebook = rvq.layers[0]._codebook
    codebook.embed.copy_(torch.randn(1, K, 8))
    codebook.embed[0, 1] = codebook.embed[0, 0]  # a duplicate, which a repair moves
    codebook.cluster_size.copy_(torch.rand(1, K) * 50 + 10)
    codebook.embed_avg.copy_(codebook.embed * codebook.cluster_size[..., None])
    path, out = tmp_path / "shared.safetensors", tmp_path / "out.safetensors"
    save_file({key: value.clone() for key, value in rvq.state_dict().items()}, path)
    settings = Settings(only=("spread-duplicates",), unsafe=True)
    report = repair_file(path, out, settings=settings)
    assert [repair.status for repair in report.repairs] == ["applied"]
    before, after = load_file(path), load_file(out)
    names = [f"layers.{level}._codebook.embed" for level in range(3)]
    assert not torch.equal(after[names[0]], before[names[0]])
    assert all(torch.equal(after[name], after[names[0]]) for name in names)
    assert len(find_quantizers(open_checkpoint(out).tensors).views) == 1


@pytest.mark.parametrize(
    "table", ["quant.emb.weight", "rvq.levels.0.book", "my_vq.dictionary", "vq.table.weight"]
)
def test_the_only_matrix_of_a_quantizer_is_its_table(table, fake):
    around = {"encoder.0.weight": torch.randn(D, 9), "decoder.0.weight": torch.randn(9, D)}
    (view,) = find_quantizers(fake({**around, table: torch.randn(K, D)})).views
    assert (view.layout, view.confidence, view.num_codes, view.dim) == ("lone-table", Confidence.LOW, K, D)
    assert table.startswith(view.name)


@pytest.mark.parametrize(
    "key", ["rq.books.{}", "books.{}", "pq.codebooks.{}", "vq.tables.{}.weight", "quantizer.embeddings.{}"]
)
def test_a_list_of_tables_in_a_quantizer_is_one_codebook_each(key, fake):
    around = {"encoder.0.weight": torch.randn(D, 9), "decoder.0.weight": torch.randn(9, D)}
    state = {**around, **{key.format(level): torch.randn(K, D) for level in range(3)}}
    views = find_quantizers(fake(state)).views
    assert [view.keys["codebook"] for view in views] == [key.format(level) for level in range(3)]
    assert {(v.layout, v.confidence, v.num_codes, v.dim) for v in views} == {
        ("path-guess", Confidence.LOW, K, D)
    }
    assert [len(stack) for stack in stacks(views)] == [3]


@pytest.mark.parametrize(
    "key",
    [
        "prompts.{}",
        "vq.encoder.pos.{}",
        "transformer.tables.{}",
        "books.{}.bias",
        "embeddings.{}",
        "vq.heads.{}.weight",
        "rq.position_embeddings.{}",
    ],
)
def test_what_is_no_list_of_codebooks(key, fake):
    state = {key.format(level): torch.randn(K, D) for level in range(3)}
    assert find_quantizers(fake(state)).views == ()


@pytest.mark.parametrize(
    "others",
    [
        {"vq.out.weight": (K, D)},
        {"vq.proj.weight": (K, D)},
        {"vq.emb.weight": (K, D), "vq.emb.bias": (K,)},
        {"vq.emb.weight": (K, D), "vq.mix.weight": (D, D)},
        {"vq_head.weight": (K, D)},
        {"vqgan.encoder.emb.weight": (K, D)},
        {"transformer.emb.weight": (K, D)},
    ],
    ids=lambda others: " ".join(others),
)
def test_what_is_no_lone_table(others, fake):
    assert find_quantizers(fake(others)).views == ()


def test_statistics_prove_a_collapsed_layer_too(fake):
    """One code has nearly all vectors, and the others' counts are on their way down."""
    rng = np.random.default_rng(0)
    codes, counts = rng.normal(size=(64, D)), np.r_[995.0, rng.uniform(0.01, 0.06, 40), np.full(23, 1e-8)]
    smoothed = (counts + 1e-5) * (counts.sum() / (counts.sum() + 64e-5))
    state = {"dic.words": codes, "dic.hits": counts, "dic.total": codes * smoothed[:, None]}
    (view,) = find_quantizers(fake({k: v.astype(np.float32) for k, v in state.items()})).views
    assert (view.name, view.keys["codebook"], view.num_codes) == ("dic", "dic.words", 64)
    noise = {**state, "dic.total": rng.normal(size=(64, D))}
    assert find_quantizers(fake({k: v.astype(np.float32) for k, v in noise.items()})).views == ()
