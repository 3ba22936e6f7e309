"""The hyper-parameters that a file records build the model: plain values, by name, and told."""

import argparse
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.core.evidence import CodeExpiry, GradientPath
from vqdoctor.engine import Settings, UserModel, examine
from vqdoctor.saved.arguments import recorded_arguments


class Model(nn.Module):
    """As a LightningModule after `save_hyperparameters()`: its arguments say how it is built."""

    def __init__(self, width: int, codes: int = 16, threshold: float = 2, options: object = None) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, width)
        self.vq = VectorQuantize(width, codebook_size=codes, threshold_ema_dead_code=threshold)
        self.decoder = nn.Linear(width, 6)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        z_q, _, vq_loss = self.vq(self.encoder(x)[None])
        recon = self.decoder(z_q[0])
        return {"recon": recon, "loss": functional.mse_loss(recon, x), "vq_loss": vq_loss.sum()}


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = Model(8, codes=32, threshold=60)
    for _ in range(3):
        model(torch.randn(64, 6))
    arguments = {"width": 8, "codes": 32, "threshold": 60, "lr": 0.1, "options": argparse.Namespace(a=1)}
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": arguments}, tmp_path / "run.ckpt")
    return tmp_path / "run.ckpt"


def test_a_revival_threshold_is_found_without_an_argument(ckpt: Path) -> None:
    x = torch.randn(64, 6).numpy()
    report = examine(ckpt, data={"x": x}, user_model=UserModel(model=Model), settings=Settings(batches=1))
    note = next(note for note in report.notes if note.startswith("built with the file's hyper_parameters"))
    assert note.endswith("width=8, codes=32 (default 16), threshold=60 (default 2)")
    live = [e for e in report.evidence if isinstance(e, CodeExpiry) and e.source == "batch"]
    assert [e.threshold for e in live] == [60]
    assert "VQ402" in {finding.code for finding in report.findings}
    assert report.find(GradientPath, "vq") is not None


def test_the_users_argument_comes_first(ckpt: Path) -> None:
    x = torch.randn(64, 6).numpy()
    user_model = UserModel(model=Model, model_args={"threshold": 0})
    report = examine(ckpt, data={"x": x}, user_model=user_model, settings=Settings(batches=1))
    assert "threshold" not in next(note for note in report.notes if note.startswith("built with"))


def test_only_plain_values_that_the_factory_names_are_passed_on() -> None:
    nested = [1, {"a": (None, "b")}]
    tree = {"hyper_parameters": {"width": 8, "threshold": nested, "lr": 0.1, "codes": object()}}
    assert recorded_arguments(tree, Model) == {"width": 8, "threshold": nested}
    assert recorded_arguments(tree, lambda **kwargs: None) == {}
    assert recorded_arguments({"hyper_parameters": 3}, Model) == recorded_arguments([], Model) == {}
