"""State dicts without a VQ layer: nothing is recognised, and the nearest tensors are named."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn
from vector_quantize_pytorch import LFQ, ResidualLFQ, SimVQ

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
    "simvq-with-a-transform-of-two-layers": {
        "vq.frozen_codebook": (512, 32),
        "vq.code_transform.0.weight": (64, 32),
        "vq.code_transform.2.weight": (64, 64),
    },
    "embedding-behind-a-map-of-another-width": {
        "quantize.embedding.weight": (512, 64),
        "quantize.embedding_proj.weight": (64, 32),
        "quantize.embedding_proj.bias": (64,),
    },
    "embedding-beside-a-map-that-may-be-the-inputs": {
        "quantize.embedding.weight": (512, 64),
        "quantize.proj.weight": (64, 64),
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
        "tokenizer.vq.code_transform.0.weight": (64, 32),
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


@pytest.mark.parametrize("prefix", ["", "quantizer."])
def test_a_lookup_free_quantizer_is_named_in_a_note(prefix, fake):
    state = LFQ(codebook_size=1024, dim=8).state_dict()
    found = find_quantizers(fake(state, f"state_dict.{prefix}"))
    assert found.views == ()
    (note,) = found.notes
    assert note.startswith('"quantizer" is' if prefix else "the model is")
    assert "10 bits" in note
    assert "1024 codes" in note


def test_each_level_of_a_residual_lookup_free_quantizer_is_named(fake):
    state = ResidualLFQ(dim=8, codebook_size=16, num_quantizers=2).state_dict()
    assert len(find_quantizers(fake(state)).notes) == 2


@pytest.mark.parametrize(
    "mask", [np.ones(10), np.ones(10, np.int64), 2 ** np.arange(10), np.ones((4, 4), np.int64)]
)
def test_other_masks_are_no_bits(mask, fake):
    assert find_quantizers(fake({"attention.mask": mask})).notes == ()


def test_a_simvq_that_a_file_cannot_show_is_named_in_a_note(fake):
    transform = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8))
    vq = SimVQ(dim=8, codebook_size=16, codebook_transform=transform)
    found = find_quantizers(fake(vq.state_dict(), "model.vq."))
    assert found.views == ()
    (note,) = found.notes
    assert note.startswith('"vq" is a SimVQ')
