"""Rows that lie on another one: how many of them equal each other, and how many are unused."""

import torch

from vqdoctor.probes.file import codebook_geometry


def test_unused_copies_are_counted_from_both_ends(tiny, examine, ask):
    model = tiny(codes=64)
    model.vq.ema_cluster_size.fill_(20.0)
    codes = torch.randn(64, 6)
    codes[40:50] = codes[3]  # ten copies and the row itself, of which only that one is in use
    codes[60] = codes[61]
    model.vq.embedding.copy_(codes)
    model.vq.ema_cluster_size[40:] = 1e-6
    model.vq.ema_embedding_sum.copy_(codes * model.vq.ema_cluster_size[:, None])
    found = ask(codebook_geometry, examine({"model": model.state_dict()}))
    assert (found.duplicate_rows, found.most_copied, found.unused_copies) == (11, 11, 12)


def test_without_copies_and_before_the_first_update(tiny, examine, ask):
    found = ask(codebook_geometry, examine({"model": tiny(codes=64).state_dict()}))
    assert (found.duplicate_rows, found.most_copied, found.unused_copies) == (0, 0, None)
