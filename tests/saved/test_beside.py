"""The optimizer that transformers' Trainer and accelerate leave beside the weights."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from hostile_files import Calls, canary
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


class TrainingArguments:
    """As transformers pickles it, which needs accelerate to be made."""

    def __init__(self):
        self.learning_rate, self.per_device_train_batch_size, self.num_train_epochs = 3e-4, 24, 100


CONFIG = {"codebook_size": 16, "commitment_cost": 0.3, "decay": 0.95, "model_type": "vq", "epochs": 99}
STATE = {"epoch": 3.0, "global_step": 420, "log_history": [{"epoch": 1.0, "step": 140, "loss": 2.0}]}


def record_of(folder: Path, weights: str = "model.safetensors"):
    save_file(Model().state_dict(), folder / weights)
    checkpoint = open_checkpoint(folder / weights)
    return FileContext(checkpoint=checkpoint, views=()).saved.record


def test_config_and_trainer_state_are_the_record(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "trainer_state.json").write_text(json.dumps(STATE))
    record = record_of(tmp_path)
    assert (record.epochs, record.updates, record.commitment_weight, record.decay) == (3, 420, 0.3, 0.95)
    assert "epochs=trainer_state.json: epoch" in record.found_at
    assert record_of(tmp_path, "mine.safetensors").sample_size == 0  # not a trainer's folder


def test_training_arguments_are_read_and_not_run(tmp_path):
    torch.save(TrainingArguments(), tmp_path / "training_args.bin")
    record = record_of(tmp_path)
    assert (record.learning_rate, record.batch_size, record.epochs) == (3e-4, 24, None)
    assert "learning_rate=training_args.bin (TrainingArguments): learning_rate" in record.found_at
    (tmp_path / "training_args.bin").write_bytes(pickle.dumps(Calls(print, f"touch {canary(tmp_path)}")))
    assert record_of(tmp_path).sample_size == 0 and not canary(tmp_path).exists()


def test_what_the_file_itself_records_comes_first(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "trainer_state.json").write_text("{broken")
    torch.save({"model": Model().state_dict(), "vq_decay": 0.5}, tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path / "pytorch_model.bin")
    record = FileContext(checkpoint=checkpoint, views=()).saved.record
    assert (record.decay, record.commitment_weight, record.epochs) == (0.5, 0.3, None)  # 99 is a plan
