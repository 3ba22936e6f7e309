"""Names of codebooks, counts and sums that were met in public projects and missed once."""

import pytest

from vqdoctor.layouts import find_quantizers

K, D = 12, 5


@pytest.mark.parametrize(
    ("shapes", "roles"),
    [
        # NeMo's codec
        ({"vq.codes": (K, D), "vq.codes_avg": (K, D), "vq.cluster_size": (K,)}, "codebook counts sums"),
        # CVQ-VAE and TiTok with clustering: shares of the usage, no sums
        ({"quantize.embedding.weight": (K, D), "quantize.embed_prob": (K,)}, "codebook counts"),
        (
            {"vq.embedding": (K, D), "vq.cluster_size": (K,), "vq.ema_embed_avg": (K, D)},
            "codebook counts sums",
        ),
        ({"vq.embedding": (K, D), "vq.cluster_size": (K,), "vq.cluster_sum": (K, D)}, "codebook counts sums"),
        ({"vq.w.weight": (K, D), "vq.ema_w": (K, D), "vq.ema_cluster_size": (K,)}, "codebook counts sums"),
        ({"q.cb": (K, D), "q.cluster_size": (K,), "q._ema_weight": (K, D)}, "codebook counts sums"),
        ({"q.centroids": (K, D), "q.cluster_size": (K,)}, "codebook counts"),
        ({"vq.cb.weight": (K, D)}, "codebook"),
        ({"vq_layer.CB": (K, D)}, "codebook"),
        ({"quantizer.w_embedding": (K, D)}, "codebook"),
        ({"vq.centroids": (K, D)}, "codebook"),
    ],
)
def test_the_layer_is_found_with_all_its_roles(shapes, roles, fake):
    network = {"encoder.0.weight": (8, 3, 3, 3), "decoder.0.weight": (3, 8, 3, 3)}
    (view,) = find_quantizers(fake(network | shapes)).views
    assert (view.num_codes, view.dim) == (K, D)
    assert set(view.keys) == set(roles.split())


def test_a_list_of_bare_embeddings_is_a_residual_quantizer(fake):
    levels = {f"layers.{i}.embedding.weight": (K, D) for i in range(3)}
    encoder = {"encoder.mlp.0.weight": (16, 30), "decoder.mlp.0.weight": (30, 5)}
    found = find_quantizers(fake(encoder | levels, "model.")).views
    assert [view.name for view in found] == ["layers.0", "layers.1", "layers.2"]
    for other in (
        {"layers.0.out_proj.0.weight": (D, D)},  # SimVQ: the codes are projected rows
        {"layers.1.attention.weight": (D, D)},  # a transformer
        {"layers.3.embedding.weight": (K + 1, D)},
    ):
        assert not find_quantizers(fake(encoder | levels | other)).views
    assert not find_quantizers(fake(levels)).views, "without an encoder and a decoder it may be anything"
