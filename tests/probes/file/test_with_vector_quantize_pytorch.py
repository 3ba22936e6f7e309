import numpy as np
import pytest
import torch
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from vqdoctor.core.evidence import EmaState, Unavailable, Usage
from vqdoctor.probes.file import codebook_geometry, ema_state, usage


def run(layer, steps=120):
    torch.manual_seed(0)
    layer.train()
    seen = []
    for _ in range(steps):
        indices = layer(torch.randn(8, 32, 8))[1]
        seen.append(indices.reshape(-1, indices.shape[-1] if indices.ndim == 3 else 1))
    return torch.stack(seen).numpy()


def named(layer, name="vq"):
    return {f"{name}.{key}": value for key, value in layer.state_dict().items()}


def test_usage_is_that_of_the_vectors_it_quantized(examine, ask):
    layer = VectorQuantize(dim=8, codebook_size=64, decay=0.95)
    seen = run(layer, 200)
    found = ask(usage, examine({"model": named(layer), "config": {"vq": {"decay": 0.95}}, "step": 200}))
    weights = 0.95 ** np.arange(199, -1, -1)
    counts = sum(w * np.bincount(batch.ravel(), minlength=64) for w, batch in zip(weights, seen, strict=True))
    p = counts / counts.sum()
    assert isinstance(found, Usage)
    assert found.perplexity == pytest.approx(np.exp(-np.sum(p[p > 0] * np.log(p[p > 0]))), rel=0.01)


def test_residual_layers_agree_with_their_sums(examine, ask):
    layer = ResidualVQ(dim=8, codebook_size=32, num_quantizers=3, kmeans_init=True)
    run(layer)
    context = examine({"model": named(layer)})
    assert len(context.views) == 3
    for view in context.views:
        state = ask(ema_state, context, view.name)
        assert isinstance(state, EmaState)
        assert state.worst_disagreement < 1e-3 and state.compared_rows > 16
        assert isinstance(ask(usage, context, view.name), Usage)


def test_counts_that_a_learnable_codebook_never_writes(examine, ask):
    layer = VectorQuantize(dim=8, codebook_size=64, learnable_codebook=True, ema_update=False)
    run(layer, 3)
    gap = ask(usage, examine(named(layer)))
    assert isinstance(gap, Unavailable) and "never written: all are at 1" in gap.reason


def test_a_cosine_layer_has_unit_rows(examine, ask):
    layer = VectorQuantize(dim=8, codebook_size=64, use_cosine_sim=True)
    run(layer, 20)
    assert ask(codebook_geometry, examine(named(layer))).unit_rows
