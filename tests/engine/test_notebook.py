"""`vqdoctor.examine` in a script or notebook: the model stays untouched, and the report shows itself."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import python
from small_vqvae import VQVAE, WEIGHT, digits, save, trained
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import EmaState, GradientPath, LossBalance, OptimizerMemory, Usage
from vqdoctor.core.report import Report

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"


@pytest.fixture
def model() -> nn.Module:
    return copy.deepcopy(trained()[0])


def test_a_live_model_is_examined_and_left_bit_equal(model: nn.Module) -> None:
    model.eval()
    model.decoder.train()  # type: ignore[union-attr]
    model.encoder[0].weight.grad = torch.ones_like(model.encoder[0].weight)  # type: ignore[index]
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    randomness = torch.get_rng_state()
    report = vqdoctor.examine(model, digits()[0], trained_vq_weight=WEIGHT)
    assert report.checkpoint is None
    assert report.verdict == "healthy" and report.findings == ()
    assert not [o for o in report.outcomes if o.status == "crashed"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert bool((model.encoder[0].weight.grad == 1).all())  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), randomness)
    with torch.no_grad():
        counts = torch.bincount(model.eval()(digits()[0])["indices"].flatten(), minlength=32)
    usage = report.find(Usage, "vq")
    assert usage is not None
    assert (usage.vectors, usage.used) == (int(counts.sum()), int((counts > 0).sum()))
    assert report.find(GradientPath, "vq") is not None
    assert report.find(EmaState, "vq") is not None  # what a file would tell is told too


def test_the_optimizer_is_looked_at_where_it_is_given(model: nn.Module) -> None:
    _, optimizer = trained()
    bare = vqdoctor.examine(model)
    assert [u.reason for u in bare.unavailable if u.kind == OptimizerMemory.kind] == [
        "no optimizer was given"
    ]
    assert "VQ903" not in {f.code for f in bare.findings}
    memory = vqdoctor.examine(model, optimizer=optimizer).find(OptimizerMemory, "vq")
    assert memory is not None and memory.ratio is not None


def test_every_kind_of_batch_gives_the_same_gradients(model: nn.Module, tmp_path: Path) -> None:
    x = digits()[0][:64]
    np.savez(tmp_path / "x.npz", x=x.numpy())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=64)
    balances = [
        vqdoctor.examine(model, batch, batches=1, select=["VQ101"]).find(LossBalance, "vq")
        for batch in (x, x.numpy(), {"x": x}, (x,), [x], loader, tmp_path / "x.npz")
    ]
    assert balances[0] is not None and balances[0].vq_gradient > 0
    assert all(balance == balances[0] for balance in balances)


def test_losses_of_a_script_see_the_batch_as_it_is(model: nn.Module) -> None:
    batch = {"images": digits()[0][:64], "name": "the batch"}

    def losses(model: nn.Module, given: Any) -> Any:
        assert given["name"] == "the batch"
        output = model(given["images"])
        task = functional.mse_loss(output["recon"], given["images"])
        return vqdoctor.Losses(task=task, vq=output["vq_loss"].sum())

    own = vqdoctor.examine(model, batch, losses=losses)
    default = vqdoctor.examine(model, batch["images"])
    one, other = (r.find(LossBalance, "vq") for r in (own, default))
    assert one is not None and other is not None
    assert one.vq_gradient == pytest.approx(other.vq_gradient)
    usage = own.find(Usage, "vq")
    assert usage is not None and usage.vectors == 64 * 16


def test_a_checkpoint_is_loaded_into_a_copy_of_the_given_model(tmp_path: Path) -> None:
    fresh = VQVAE()
    before = copy.deepcopy(fresh.state_dict())
    report = vqdoctor.examine(save(tmp_path / "c.pt"), digits()[0], model=fresh, batches=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())
    live = vqdoctor.examine(trained()[0], digits()[0], batches=1)
    assert report.find(LossBalance, "vq") == live.find(LossBalance, "vq")


def test_the_report_shows_itself_and_survives_json() -> None:
    report = vqdoctor.examine(SAMPLES / "no-ste.pt")
    assert isinstance(report, Report) and isinstance(report, vqdoctor.Report)
    shown = report._repr_markdown_()
    assert shown.startswith("### vqdoctor: COLLAPSED")
    assert "VQ101" in shown
    assert str(report).startswith("COLLAPSED")
    assert repr(report) == f"<vqdoctor.Report of {SAMPLES / 'no-ste.pt'}: collapsed, VQ101, VQ401>"
    again = vqdoctor.Report.from_dict(json.loads(report.to_json()))
    assert again == report
    assert again._repr_markdown_() == shown


def test_a_report_is_the_same_as_the_command_lines() -> None:
    from vqdoctor.engine import examine

    report = vqdoctor.examine(str(SAMPLES / "masked.pt"), SAMPLES / "digits.npz")
    assert report.to_json() == examine(str(SAMPLES / "masked.pt"), data=SAMPLES / "digits.npz").to_json()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model_or_path": 3}, "neither a checkpoint nor a model"),
        ({"model_or_path": SAMPLES / "no-ste.pt", "losses": print}, "losses= is for a model"),
        ({"model_or_path": SAMPLES / "no-ste.pt", "optimizer": 1}, "belongs to a live model"),
        ({"model_or_path": nn.Linear(2, 2), "model": VQVAE}, "two models"),
        ({"model_or_path": VQVAE(), "losses": print}, "needs a batch"),
        ({"model_or_path": VQVAE(), "batch": object()}, "needs a batch with x .*given is object"),
        ({"model_or_path": VQVAE(), "batch": torch.ones(2, 3, 8, 8)}, r"fails on x float32 \[2, 3, 8, 8\]"),
        ({"model_or_path": SAMPLES / "gone.pt"}, "no such file"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        vqdoctor.examine(**arguments)


def test_importing_loads_nothing_and_the_protocol_no_torch() -> None:
    code = (
        "import sys; before = set(sys.modules); import vqdoctor; "
        "print([n for n in set(sys.modules) - before if n.split('.')[0] not in sys.stdlib_module_names]); "
        "vqdoctor.Task, vqdoctor.Losses; print('torch' in sys.modules); "
        "vqdoctor.examine; print('torch' in sys.modules, 'numpy' in sys.modules); "
        "import torch; print('torch' in sys.modules)"
    )
    told = python("-c", code, check=True).stdout
    assert told.splitlines() == ["['vqdoctor']", "False", "False True", "True"]


def test_the_package_offers_what_it_names() -> None:
    assert {"examine", "Report", "Task", "Losses"} <= set(dir(vqdoctor))
    assert all(hasattr(vqdoctor, name) for name in vqdoctor.__all__)
    with pytest.raises(AttributeError, match="no attribute 'diagnose'"):
        vqdoctor.diagnose  # noqa: B018
