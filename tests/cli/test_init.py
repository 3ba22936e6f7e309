"""`init` writes a task file that works for the user's model, and says what is left to fill in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import small_vqvae
import torch

from vqdoctor.cli.main import main

MODELS = """
import torch
from torch import nn
from torch.nn import functional as F


class Quantizer(nn.Module):
    def __init__(self, codes, dim):
        super().__init__()
        self.embedding = nn.Embedding(codes, dim)

    def forward(self, z):
        indices = torch.cdist(z, self.embedding.weight).argmin(-1)
        z_q = self.embedding(indices)
        loss = F.mse_loss(z_q, z.detach()) + 0.25 * F.mse_loss(z, z_q.detach())
        return z + (z_q - z).detach(), loss


class Net(nn.Module):
    def __init__(self, codes=16, dim=8):
        super().__init__()
        self.encoder, self.quantizer, self.head = nn.Linear(16, dim), Quantizer(codes, dim), nn.Linear(dim, 3)

    def forward(self, pixel_values, labels=None, scale=1.0):
        z_q, vq_loss = self.quantizer(self.encoder(scale * pixel_values))
        return {"logits": self.head(z_q), "vq_loss": vq_loss}


def sized(codes, *, dim):
    return Net(codes, dim)


net = Net()
number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, with a model, its checkpoint and its batch."""
    (tmp_path / "my_models.py").write_text(MODELS)
    scope: dict[str, type[torch.nn.Module]] = {}
    exec(MODELS, scope)
    torch.manual_seed(0)
    torch.save({"model": scope["Net"]().state_dict()}, tmp_path / "ckpt.pt")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    np.savez(
        tmp_path / "batch.npz",
        pixel_values=rng.normal(size=(400, 16)).astype("f"),
        labels=labels,
        split=np.where(np.arange(400) % 4, "train", "val"),
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examined(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    capsys.readouterr()
    assert main(["inspect", "ckpt.pt", *more, "-f", "json"]) in (0, 1)
    return json.loads(capsys.readouterr().out)


def test_the_file_works_as_it_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "my_models.py:Net"]) == 0
    told = capsys.readouterr().out
    assert 'numpy.savez("batch.npz", pixel_values=pixel_values, labels=labels)' in told
    assert "vqdoctor inspect CKPT --task vq_task.py:task" in told
    written = (here / "vq_task.py").read_text()
    assert written.count("FILL IN:") >= 3 and max(map(len, written.splitlines())) <= 110
    report = examined(capsys, "--task", "vq_task.py:task")
    assert report["model"] == {**report["model"], "samples": 100, "split": "val"}
    assert any("VQ loss: vq_loss" in note for note in report["notes"])
    assert report["layers"][0]["usage"]["source"] == "batch"


def test_the_same_batch_goes_to_the_model_by_keyword(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = examined(capsys, "--model", "my_models.py:Net", "--data", "batch.npz")
    assert report["model"]["accuracy"] is not None
    (summary,) = [item for item in report["evidence"] if item["kind"] == "input-summary"]
    assert (summary["name"], summary["shape"]) == ("pixel_values", [400, 16])


def test_an_input_of_text_is_refused_by_its_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(here / "batch.npz", pixel_values=np.array(["a", "b"]))
    assert main(["inspect", "ckpt.pt", "--model", "my_models.py:Net", "--data", "batch.npz"]) == 2
    assert "error: pixel_values of the batch is text (str" in capsys.readouterr().err


def test_an_existing_file_is_not_written_over(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "vq_task.py").write_text("mine")
    assert main(["init", "my_models.py:Net"]) == 2
    assert "error: vq_task.py exists, and is not written over\nhelp: " in capsys.readouterr().err
    assert (here / "vq_task.py").read_text() == "mine"


def test_arguments_that_are_not_known_are_to_be_filled_in(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "my_models.py:sized", "--model-arg", "dim=8"]) == 0
    assert "the VQ loss's weight, the batch size, codes=" in capsys.readouterr().out
    task = here / "vq_task.py"
    assert "return sized(dim=8, codes=FILL_IN)" in task.read_text()
    assert main(["inspect", "ckpt.pt", "--task", "vq_task.py:task"]) == 2
    assert "name 'FILL_IN' is not defined (vq_task.py:" in capsys.readouterr().err
    # The model is not known before it is built, and neither is the name of its input.
    filled = (
        task.read_text().replace("FILL_IN)", "16)").replace('input_name = "x"', 'input_name = "pixel_values"')
    )
    task.write_text(filled)
    assert examined(capsys, "--task", "vq_task.py:task")["model"]["samples"] == 100


@pytest.mark.parametrize(
    ("file", "name", "line"),
    [
        ("elsewhere/other_models.py", "Net", "sys.path.insert(0, "),
        ("my-models.v2.py", "Net", "Net = load_object("),
        ("my_models_too.py", "net", "return copy.deepcopy(net)"),
    ],
)
def test_a_model_wherever_it_is(
    here: Path, capsys: pytest.CaptureFixture[str], file: str, name: str, line: str
) -> None:
    (here / file).parent.mkdir(exist_ok=True)
    (here / file).write_text(MODELS)
    assert main(["init", f"{file}:{name}", "-o", "a_task.py"]) == 0
    assert line in (here / "a_task.py").read_text()
    assert examined(capsys, "--task", "a_task.py:task")["model"]["samples"] == 100


def test_an_image_model_that_takes_x(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_vqvae.save(here / "ckpt.pt", "model.")
    np.savez(here / "batch.npz", x=small_vqvae.digits()[0][:256].numpy())
    (here / "vae.py").write_text(f"import sys\nsys.path.append({str(Path(small_vqvae.__file__).parent)!r})\n"
                                 "from small_vqvae import VQVAE\n")  # fmt: skip
    assert main(["init", "vae.py:VQVAE"]) == 0
    assert 'savez("batch.npz", x=x, y=y)' in capsys.readouterr().out
    report = examined(capsys, "--task", "vq_task.py:task")
    assert any(note.startswith("task loss: mean squared error") for note in report["notes"])


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("my_models.py:Nett", "did you mean Net? it defines "),
        ("my_modles.py:Net", "there is no such file\nhelp: did you mean my_models.py?"),
        ("my_modles:Net", "there is no module 'my_modles'\nhelp: did you mean my_models?"),
        ("my_models.py:Net.forwad", "has no 'Net.forwad'\nhelp: did you mean forward?"),
        ("my_models.py:Net.fromscratch", "has no 'Net.fromscratch'"),
        ("my_models.py:number", "is a int\nhelp: name a torch.nn.Module"),
        ("my_models.py", "not of the form"),
        ("hf", "hf needs no task file\nhelp: vqdoctor inspect FOLDER --model hf"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], spec: str, says: str
) -> None:
    assert main(["init", spec]) == 2
    assert says in capsys.readouterr().err
    assert not (here / "vq_task.py").exists()
