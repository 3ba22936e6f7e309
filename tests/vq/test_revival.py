"""Revival that the next EMA update does not undo."""

import torch

from vqdoctor.reference.quantizer import VectorQuantizerEMA2D
from vqdoctor.vq.codebook import Codebook
from vqdoctor.vq.revival import revive


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_revived_codes_stay_where_they_were_put():
    torch.manual_seed(0)
    quantizer = VectorQuantizerEMA2D(8, 2, decay=0.99)
    quantizer.set_codes(torch.randn(8, 2) + 50.0, torch.tensor([100.0] + [1e-3] * 7))
    vectors = torch.randn(100, 2)
    usage = torch.tensor([100.0] + [0.0] * 7)
    revived = revive(
        quantizer.codebook,
        usage=usage,
        vectors=vectors,
        generator=seeded(),
    )
    assert revived.tolist() == [1, 2, 3, 4, 5, 6, 7]
    placed = quantizer.embedding[revived].clone()
    assert (placed[:, None] == vectors).all(2).any(1).all()
    assert len(placed.unique(dim=0)) == 7
    counts = quantizer.ema_cluster_size[revived]
    assert counts.min() > 1.0
    torch.testing.assert_close(quantizer.ema_embedding_sum[revived], placed * counts[:, None])
    quantizer.train()(torch.full((1, 2, 3, 3), 50.0))
    torch.testing.assert_close(quantizer.embedding[revived], placed, atol=1e-3, rtol=1e-3)


def test_live_codes_are_left_alone_and_vectors_may_run_out():
    embedding = torch.zeros(6, 2)
    revived = revive(
        Codebook(codes=embedding),
        usage=torch.tensor([5.0, 5.0, 0.0, 0.0, 0.0, 0.0]),
        vectors=torch.ones(3, 2),
        generator=seeded(),
    )
    assert revived.tolist() == [2, 3, 4]
    assert embedding.sum(1).tolist() == [0.0, 0.0, 2.0, 2.0, 2.0, 0.0]
