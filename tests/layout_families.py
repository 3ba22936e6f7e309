"""Families of models and libraries with a VQ layer, by the keys of their files: the matrix of the layouts.

Each is a state dict by names and shapes, made small: 32 codes of 6 dimensions where nothing else is said.
Those of libraries that install are the state dicts of their own modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import nsvq
import torch
import vector_quantize_pytorch as vqp
from torch import nn

from vqdoctor.layouts.families import all_layouts

K, D = 32, 6
Shapes = Mapping[str, tuple[int, ...]]
AROUND: Shapes = {"encoder.conv_in.weight": (D, 3, 3, 3), "decoder.conv_out.weight": (3, D, 3, 3)}


def embedding(key: str, **more: tuple[int, ...]) -> Shapes:
    """A table of codes under that key, and further keys with dots written as two underscores."""
    return {key: (K, D), **{name.replace("__", "."): shape for name, shape in more.items()}, **AROUND}


def example(layout: str) -> Shapes:
    """The example that a layout gives of itself."""
    return next(found.example for found in all_layouts() if found.name == layout)


STORED: dict[str, Shapes] = {
    "vqdoctor's reference model": example("reference"),
    "home-made EMA buffers": example("ema-buffers"),
    "encodec": example("encodec"),
    "audiocraft": {"model." + key: shape for key, shape in example("encodec").items()},
    "DAC": example("dac"),
    "SNAC": {
        key.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): shape
        for key, shape in example("dac").items()
    },
    "moshi's Mimi": example("mimi"),
    "NSVQ of its authors": example("nsvq"),
    "rosinality's VQ-VAE-2": {
        f"quantize_{part}.{name}": shape
        for part in "tb"
        for name, shape in {"embed": (D, K), "cluster_size": (K,), "embed_avg": (D, K)}.items()
    },
    "zalando's VectorQuantizerEMA": example("zalando-ema"),
    "zalando's VectorQuantizer": embedding("_vq_vae._embedding.weight"),
    "taming's VQGAN": embedding("quantize.embedding.weight", quant_conv__weight=(D, D, 1, 1)),
    "taming's EMA quantizer": example("taming-ema"),
    "taming's Gumbel VQGAN": example("gumbel-quantize"),
    "karpathy's deep-vector-quantization": example("gumbel-quantize"),
    "home-made product quantizer": {"pq.tables": (4, K, D), "pq.filled": (), **AROUND},
    "latent diffusion (vq-f4)": embedding(
        "first_stage_model.quantize.embedding.weight", first_stage_model__quant_conv__weight=(D, D, 1, 1)
    ),
    "Chameleon's image tokenizer": embedding("model.vqmodel.quantize.embedding.weight"),
    "ViT-VQGAN (enhancing-transformers)": embedding("quantizer.embedding.weight"),
    "VideoGPT": {"codebook.embeddings": (K, D), "codebook.N": (K,), "codebook.z_avg": (K, D)},
    "ESM3's structure tokenizer": {
        "codebook.embeddings": (K, D), "codebook.N": (K,), "codebook.ema_weight": (K, D),
    },
    "bshall's VectorQuantizedCPC": {
        "codebook.embedding": (2, K, D), "codebook.ema_count": (2, K), "codebook.ema_weight": (2, K, D),
    },
    "BEiT-v2": embedding("quantize.embedding.weight", quantize__cluster_size=(K,)),
    "LaVIT": embedding("quantize.embedding.weight", quantize__cluster_size=(K,)),
    "RQ-VAE (kakaobrain)": {
        "quantizer.codebooks.0.weight": (K + 1, D), "quantizer.codebooks.0.cluster_size_ema": (K,),
        "quantizer.codebooks.0.embed_ema": (K, D),
    },
    "T2M-GPT": embedding("vqvae.quantizer.codebook"),
    "jukebox": {f"bottleneck.level_blocks.{level}.k": (K, D) for level in range(3)},
    "BigCodec": embedding("quantizer._codebook.weight"),
    "NeMo's codec": {"vq.codes": (K, D), "vq.codes_avg": (K, D), "vq.cluster_size": (K,)},
    "CVQ-VAE": embedding("quantize.embedding.weight", quantize__embed_prob=(K,)),
    "TiTok": embedding("quantize.embedding.weight", quantize__embed_prob=(K,)),
    "LlamaGen": embedding("quantize.embedding.weight", quantize__codebook_used=(65536,)),
    "Janus": embedding("vision_tokenizer.quantize.embedding.weight"),
    "VAR": embedding("quantize.embedding.weight", quantize__ema_vocab_hit_SV=(10, K)),
    "fairseq's wav2vec 2.0": example("wav2vec2"),
    "fairseq's vq-wav2vec": example("vq-wav2vec"),
    "SimVQ of its authors": example("simvq-embedding"),
    "OptVQ": example("optvq"),
    "VQGAN-LC": example("vqgan-lc"),
    "RQ-VAE-Recommender": {
        **example("rq-vae-recommender"), **{f"layers.{i}.embedding.weight": (256, 32) for i in range(1, 3)},
    },
    "sonnet's ports": {
        "vq.embeddings": (K, D), "vq.ema_cluster_size.average": (K,), "vq.ema_dw.average": (K, D),
    },
    "pythae": {"quantizer.embeddings": (K, D), "quantizer.cluster_size": (K,), "quantizer.ema_embed": (K, D)},
    "Hugging Face's Encodec": example("hf-encodec"),
    "Hugging Face's Mimi": {
        f"quantizer.semantic_residual_vector_quantizer.layers.0.codebook.{name}": shape
        for name, shape in {"initialized": (1,), "cluster_usage": (K,), "embed_sum": (K, D)}.items()
    },
    "Hugging Face's Dac": {
        "quantizer.quantizers.0.in_proj.weight": (8, 64, 1), "quantizer.quantizers.0.codebook.weight": (K, 8),
        "quantizer.quantizers.0.out_proj.weight": (64, 8, 1),
    },
    "Hugging Face's wav2vec 2.0": {
        "quantizer.codevectors": (1, 2 * K, D), "quantizer.weight_proj.weight": (2 * K, 64),
        "quantizer.weight_proj.bias": (2 * K,), "project_q.weight": (64, 2 * D),
    },
    "a random projection": example("random-projection"),
    "QINCo": {
        "codebook0.weight": (K, D), "step1.codebook.weight": (K, D), "step1.MLPconcat.weight": (D, 2 * D),
    },
    "a list of parameters": {f"rq.books.{level}": (K, D) for level in range(3)},
    "a list of embeddings": {f"pq.codebooks.{group}.weight": (K, D) for group in range(2)},
}  # fmt: skip


class OfRows(nn.Module):
    """NSVQ takes vectors [N, D] alone."""

    def __init__(self) -> None:
        super().__init__()
        self.nsvq = nsvq.NSVQ(num_embeddings=K, embedding_dim=8, verbose=False)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.nsvq(z.flatten(0, -2))[0].view_as(z),)


INSTALLED: dict[str, Callable[[], nn.Module]] = {
    "vector-quantize-pytorch VectorQuantize": lambda: vqp.VectorQuantize(dim=8, codebook_size=K),
    "… cosine": lambda: vqp.VectorQuantize(dim=8, codebook_size=K, use_cosine_sim=True),
    "… learnable": lambda: vqp.VectorQuantize(
        dim=8, codebook_size=K, learnable_codebook=True, ema_update=False
    ),
    "… a codebook for each head": lambda: vqp.VectorQuantize(
        dim=8, codebook_size=K, heads=2, separate_codebook_per_head=True
    ),
    "… ResidualVQ": lambda: vqp.ResidualVQ(dim=8, codebook_size=K, num_quantizers=2),
    "… GroupedResidualVQ": lambda: vqp.GroupedResidualVQ(dim=8, groups=2, codebook_size=K, num_quantizers=2),
    "… SimVQ": lambda: vqp.SimVQ(dim=8, codebook_size=K),
    "… ResidualSimVQ": lambda: vqp.ResidualSimVQ(dim=8, codebook_size=K, num_quantizers=2),
    "nsvq": OfRows,
}
"""Modules [B, N, 8] to [B, N, 8], as an autoencoder uses them."""


LIVE = {
    *INSTALLED, "Hugging Face's Encodec", "Hugging Face's Mimi", "Hugging Face's Dac",
    "Hugging Face's wav2vec 2.0",
}  # fmt: skip
"""Families that are run with data; those of Hugging Face in tests/probes/test_libraries.py."""


def tensors(name: str) -> dict[str, torch.Tensor]:
    """Return the state dict of a family; a module of its own stands as `vq` in a model."""
    if name in INSTALLED:
        return {f"vq.{key}": value for key, value in INSTALLED[name]().state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    return {key: torch.rand(shape, generator=generator) + 0.1 for key, shape in STORED[name].items()}


FAMILIES = (*STORED, *INSTALLED)
