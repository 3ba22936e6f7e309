"""The optimizer that transformers' Trainer and accelerate leave beside the weights."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.layouts import find_quantizers
from vqdoctor.probes.file import FileContext, optimizer_memory


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.zencoder = nn.Linear(8, 4)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(16, 4)
        self.adecoder = nn.Linear(4, 8)

    def step(self, optimizer):
        z = self.zencoder(torch.randn(32, 8))
        q = self.quantize.embedding(torch.randint(0, 5, (32,)))
        optimizer.zero_grad()
        (self.adecoder(z + (q - z).detach()).square().mean() + (q - z.detach()).square().mean()).backward()
        optimizer.step()


@pytest.mark.parametrize("optimizer_name", ["optimizer.pt", "optimizer.bin", "other.pt"])
@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_it_is_read(tmp_path, weights, optimizer_name):
    torch.manual_seed(0)
    model = Model()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": plain, "weight_decay": 0.0}])
    for _ in range(7):
        model.step(optimizer)
    torch.save(optimizer.state_dict(), tmp_path / optimizer_name)
    if weights.endswith("bin"):
        torch.save(model.state_dict(), tmp_path / weights)
    else:
        save_file(model.state_dict(), tmp_path / weights)
    checkpoint = open_checkpoint(tmp_path / weights)
    context = FileContext(checkpoint=checkpoint, views=find_quantizers(checkpoint.tensors).views)
    if optimizer_name == "other.pt":
        assert context.saved.optimizers == ()
        return
    assert context.saved.record.updates == 7
    found = next(e for e in optimizer_memory.PROBE.measure(context) if e.layer == "quantize")
    assert found.codebook_listed and found.codebook_untouched_rows == 11
    # safetensors sorts by name, so that what is before and after the layer is not known
    assert (found.ratio is None) == weights.endswith("safetensors")


def test_a_damaged_one_is_passed_over(tmp_path):
    torch.save(Model().state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "optimizer.pt").write_bytes(b"PK\x03\x04")
    checkpoint = open_checkpoint(tmp_path)
    assert FileContext(checkpoint=checkpoint, views=()).saved.optimizers == ()
