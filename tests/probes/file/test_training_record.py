import argparse
from types import SimpleNamespace

import pytest
import torch

from vqdoctor.checkpoint import LazyTensor
from vqdoctor.core.evidence import Unavailable
from vqdoctor.probes.file import training_record


@pytest.fixture
def record(examine, ask):
    def record(saved):
        weights = {"vq.embedding.weight": torch.randn(8, 4)}
        return ask(training_record, examine({"model": weights, **saved}), layer=None)

    return record


def test_reads_a_plain_config(record):
    found = record(
        {
            "epoch": 12,
            "global_step": 3400,
            "vqdoctor_task": "conv2d-vq/digits",
            "config": {
                "vq_weight": 0.5, "commitment_cost": 0.25, "decay": 0.95, "num_codes": 8,
                "batch_size": 16, "learning_rate": 3e-4, "epochs": 200, "steps": 99,
            },
        }
    )  # fmt: skip
    assert (found.vq_weight, found.commitment_weight, found.decay) == (0.5, 0.25, 0.95)
    assert (found.epochs, found.updates, found.batch_size) == (12, 3400, 16)  # done, not planned
    assert (found.learning_rate, found.task) == (3e-4, "conv2d-vq/digits")
    assert found.sample_size == 8
    assert "vq_weight=config.vq_weight" in found.found_at


def test_reads_a_namespace_and_nested_sections(record):
    args = argparse.Namespace(codebook_size=8, beta=0.3, lr=1e-3, betas=(0.5, 0.9), lr_decay=0.7)
    found = record({"args": args, "hparams": {"model": {"quantizer": {"decay": 0.98}}, "weight_decay": 0.1}})
    assert (found.commitment_weight, found.decay, found.learning_rate) == (0.3, 0.98, 1e-3)


@pytest.mark.parametrize(
    "other",
    [
        {"beta": 4.0, "latent_dim": 8},  # of a plain VAE
        {"betas": (0.9, 0.999)},
        {"optimizer": {"beta": 0.9, "state": {}, "param_groups": []}},
        {"lr_schedulers": [{"beta": 0.9, "decay": 0.5, "step": 7, "epoch": 3}]},
        {"vq": {"decay": 1.5, "beta": float("nan")}},
        {"vq": {"beta": True}},
    ],
)
def test_leaves_what_belongs_to_something_else(record, other):
    gap = record({"extra": other})
    assert isinstance(gap, Unavailable) and "config" in gap.hint


def test_the_value_nearest_to_the_root_stands_and_the_others_are_mentioned(record):
    found = record({"vq_weight": 0.1, "config": {"loss": {"vq_weight": 10.0}}})
    assert found.vq_weight == 0.1
    assert found.found_at == ("vq_weight=vq_weight (1 other value further in)",)


def test_the_optimizer_stands_in(examine, ask, tiny, trained):
    model = tiny()
    optimizer = trained(model, 30)
    found = ask(
        training_record, examine({"m": model.state_dict(), "opt": optimizer.state_dict()}), layer=None
    )
    assert (found.updates, found.learning_rate) == (30, 1e-3)
    assert "updates=opt.state.*.step" in found.found_at


def test_steps_saved_as_a_tensor(record):
    assert record({"step": torch.tensor(77)}).updates == 77


def test_reads_through_the_nodes_of_omegaconf(record):
    node = SimpleNamespace(_val=0.97, _parent=None)
    config = SimpleNamespace(_content={"vq": SimpleNamespace(_content={"decay": node})}, _metadata=None)
    found = record({"cfg": config})
    assert found.decay == 0.97 and found.found_at == ("decay=cfg.vq.decay",)


def test_tensors_that_are_no_setting_are_not_read(record, monkeypatch):
    read = []
    plain = LazyTensor.read
    monkeypatch.setattr(LazyTensor, "read", lambda self: read.append(self.key) or plain(self))
    norm = torch.nn.BatchNorm1d(3).state_dict()
    assert record({"model": {**norm, "vq.embedding.weight": torch.randn(8, 4)}, "step": torch.tensor(3)})
    assert [key for key in read if "num_batches" in key] == []
