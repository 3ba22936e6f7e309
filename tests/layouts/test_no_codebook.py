"""State dicts without a VQ layer: nothing is recognised, and the nearest tensors are named."""

from __future__ import annotations

import pytest

from vqdoctor.layouts import find_quantizers


def gpt(width=32, vocab=100):
    block = {
        "ln_1.weight": (width,), "ln_1.bias": (width,),
        "attn.c_attn.weight": (width, 3 * width), "attn.c_attn.bias": (3 * width,),
        "mlp.c_fc.weight": (width, 4 * width), "mlp.c_fc.bias": (4 * width,),
    }  # fmt: skip
    shapes = {"transformer.wte.weight": (vocab, width), "transformer.wpe.weight": (64, width)}
    shapes |= {f"transformer.h.{i}.{key}": shape for i in range(2) for key, shape in block.items()}
    return shapes | {"lm_head.weight": (vocab, width)}


def resnet():
    shapes = {"conv1.weight": (64, 3, 7, 7), "bn1.weight": (64,), "bn1.num_batches_tracked": ()}
    for i in range(2):
        shapes |= {
            f"layer1.{i}.bottleneck.conv1.weight": (64, 64, 1, 1),
            f"layer1.{i}.bottleneck.bn1.running_mean": (64,),
            f"layer1.{i}.bottleneck.se.weight": (64, 16),
        }
    return shapes | {"fc.weight": (1000, 512), "fc.bias": (1000,)}


def bert():
    prefix = "bert.embeddings."
    return {
        prefix + "word_embeddings.weight": (300, 32),
        prefix + "position_embeddings.weight": (64, 32),
        prefix + "token_type_embeddings.weight": (2, 32),
        prefix + "LayerNorm.weight": (32,),
        "bert.encoder.layer.0.attention.self.query.weight": (32, 32),
        "bert.encoder.layer.0.attention.self.query.bias": (32,),
    }


NEGATIVES = {
    "gpt": gpt(),
    "resnet": resnet(),
    "bert": bert(),
    "classes-and-positions-of-a-vq-transformer": {
        "vqgan_transformer.tok_emb.weight": (1024, 64),
        "vq.position_embedding.weight": (64, 64),
        "quantizer.class_embedding.weight": (10, 64),
    },
    "losses": {
        "loss.vq.codebook.weight": (64, 64),
        "lpips.codebook.weight": (64, 64),
        "loss.discriminator.quantize.embedding.weight": (64, 64),
    },
    "projections-of-a-quantizer": {
        "quantizer.project_in.weight": (8, 64),
        "quantizer.project_out.weight": (64, 8),
        "vq.in_proj.weight": (8, 64),
        "vq.weight": (8, 64),
        "vq.bias": (8,),
        "quant_conv.weight": (64, 64),
    },
    "the-tables-of-a-network-that-is-named-vq": {
        "vqvae.encoder.embedding.weight": (100, 64),
        "vqvae.decoder.embed": (100, 64),
        "vqgan.transformer.blocks.0.embed.weight": (100, 64),
    },
    "simvq": {"vq.frozen_codebook": (512, 32), "vq.code_transform.weight": (64, 32)},
    "projected-embedding": {
        "quantize.embedding.weight": (512, 64),
        "quantize.embedding_proj.weight": (64, 64),
        "quantize.embedding_proj.bias": (64,),
    },
    "fsq": {"quantizer.project_in.weight": (4, 64), "quantizer.project_out.bias": (64,)},
    "lfq": {"quantizer.mask": (10,)},
    "eight-bit": {"layer.0.weight.quant_map": (256,), "layer.0.weight.absmax": (64,)},
    "empty": {},
}


@pytest.mark.parametrize("shapes", NEGATIVES.values(), ids=NEGATIVES.keys())
@pytest.mark.parametrize("prefix", ["", "module.", "state_dict.model."])
def test_nothing_is_recognised(shapes, prefix, fake):
    found = find_quantizers(fake(shapes, prefix))
    assert [(v.name, v.layout) for v in found.views] == []
    assert len(found.candidates) <= 8


def test_candidates_are_the_nearest_first_with_reasons_and_raw_keys(fake):
    shapes = {
        **gpt(),
        "tokenizer.proto.weight": (64, 16),
        "tokenizer.vq.frozen_codebook": (512, 32),
        "tokenizer.vq.code_transform.weight": (64, 32),
    }
    best, *rest = find_quantizers(fake(shapes, "state_dict.")).candidates
    assert (best.key, best.shape) == ("state_dict.tokenizer.vq.frozen_codebook", (512, 32))
    assert "512 rows of 32" in best.why
    assert "usual name" in best.why
    assert not any("wpe" in candidate.key for candidate in rest[:1])


def test_a_token_embedding_says_why_it_is_not_one(fake):
    by_key = {c.key: c.why for c in find_quantizers(fake(bert())).candidates}
    assert "not the name of a codebook" in by_key["bert.embeddings.word_embeddings.weight"]


def test_only_float_matrices_are_candidates(fake):
    tensors = fake({"a.weight": (4, 4, 3, 3), "b": (7,), "c": (3, 3)})
    tensors["c"].dtype = "int64"
    assert find_quantizers(tensors).candidates == ()


def test_no_candidates_where_a_layer_was_found(fake):
    found = find_quantizers(fake({**gpt(), "quantize.embedding.weight": (64, 8)}))
    assert [v.name for v in found.views] == ["quantize"]
    assert found.candidates == ()
