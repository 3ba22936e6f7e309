"""Codes that were never chosen, against what the model itself counted while it was trained."""

import numpy as np
import pytest
import torch
from torch import nn

from vqdoctor.core.evidence import Unavailable
from vqdoctor.probes.file import codebook_geometry, unmoved_rows


@pytest.mark.parametrize("far", [0.0, 40.0])
def test_an_ema_keeps_where_they_began(tiny, trained, examine, ask, far):
    model = tiny(codes=64)
    model.vq.embedding += far
    model.vq.ema_embedding_sum += far
    start = model.vq.embedding.clone()
    trained(model, 120)
    never = torch.stack(model.vq.history).sum(0) == 0
    found = ask(unmoved_rows, examine({"model": model.state_dict()}))
    assert (found.rows, found.told_by) == (int(never.sum()), "counts") and found.rows > 20
    others = model.vq.embedding[~never]
    around = others if len(others) > 1 else start[never]
    size = float((around - around.mean(0)).square().sum(1).mean().sqrt())
    apart = float((start[never].mean(0) - others.mean(0)).norm()) / size
    assert found.offset == pytest.approx(apart, rel=0.01)
    assert (found.offset > 4) == (far > 0) and found.structure < 6


def test_vectors_of_the_data_are_no_noise(tiny, trained, examine, ask):
    model = tiny(codes=64)
    placed = torch.randn(64, 2) @ torch.randn(2, 6) + 30
    model.vq.embedding.copy_(placed)
    model.vq.ema_embedding_sum.copy_(placed)
    trained(model, 60)
    assert ask(unmoved_rows, examine({"model": model.state_dict()})).structure > 6


class ByGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.vq, self.decoder = nn.Linear(8, 4), nn.Module(), nn.Linear(4, 8)
        self.vq.embedding = nn.Embedding(32, 4)

    def forward(self, x):
        z, codes = self.encoder(x), self.vq.embedding.weight
        chosen = torch.cdist(z, codes).argmin(1)
        z_q = self.vq.embedding(chosen)
        loss = ((z_q - z.detach()) ** 2).mean() + ((z - z_q.detach()) ** 2).mean()
        return self.decoder(z + (z_q - z).detach()), loss, chosen


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_an_optimizer_without_weight_decay_leaves_them_there(examine, ask, decay):
    torch.manual_seed(0)
    model = ByGradient()
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=decay)
    start, used = model.vq.embedding.weight.detach().clone(), set()
    for _ in range(20):
        x = torch.randn(16, 8)
        out, loss, chosen = model(x)
        adam.zero_grad()
        (((out - x) ** 2).mean() + loss).backward()
        adam.step()
        used |= set(chosen.tolist())
    found = ask(unmoved_rows, examine({"model": model.state_dict(), "optimizer": adam.state_dict()}))
    if decay:
        assert isinstance(found, Unavailable)
        return
    assert (found.rows, found.told_by) == (32 - len(used), "optimizer") and found.rows > 2
    left = sorted(set(range(32)) - used)
    assert np.array_equal(start[left], model.vq.embedding.weight.detach()[left])


def test_codes_on_their_way_to_zero_are_no_copies(tiny, trained, examine, ask):
    model = tiny(codes=64)
    model.vq.embedding += 40.0
    model.vq.ema_embedding_sum += 40.0
    trained(model, 200)  # 0.9 to the power of 200 is 7e-10, far under the smoothing of 1e-5
    assert ask(codebook_geometry, examine({"model": model.state_dict()})).duplicate_rows == 0
