"""Public bug reports, rebuilt small and trained whole, each answered as its maintainers answered it.

`make accept` prints the table: what was said to the file alone, and with the owner's task.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from field_models import (
    Autoencoder,
    Embedding,
    Images,
    Padded,
    RqVae,
    Sequences,
    Soundstream,
    SummedEma,
    Vectors,
    fsq,
    lfq,
    residual,
    train,
)

from vqdoctor.core.errors import UserError
from vqdoctor.core.report import Report
from vqdoctor.engine import Settings, UserModel, examine

pytestmark = pytest.mark.accept


@pytest.fixture
def trained(tmp_path: Path) -> Any:
    """Return a function that trains a task's model and saves it."""

    def trained(task: Any, steps: int, rate: float = 1e-3) -> Path:
        torch.save(train(task, steps, rate), tmp_path / "case.pt")
        return tmp_path / "case.pt"

    return trained


def live(path: Path, task: Any) -> Report:
    report = examine(path, user_model=UserModel(task=task))
    assert not [o for o in report.outcomes if o.status == "crashed"]
    print(f"\n{path.name}: {[(f.code, f.severity.label, f.layer) for f in report.findings]}", flush=True)
    return report


def codes(report: Report, *severities: str) -> set[str]:
    return {f.code for f in report.findings if f.severity.label in (severities or ("warning", "error"))}


def test_codes_that_are_their_running_sums(trained: Any) -> None:
    task = Images(lambda: Autoencoder(SummedEma()), 0.25)
    path = trained(task, 600)
    for report in (examine(path), live(path, task)):
        assert report.findings[0].code == "VQ309" and "VQ102" not in codes(report)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("right", [False, True])
def test_an_rq_vae_whose_levels_are_registered_before_or_behind_the_encoder(
    first: bool, right: bool, trained: Any
) -> None:
    task = Vectors(lambda: RqVae(right, first))
    report = live(trained(task, 600), task)
    assert "VQ102" not in codes(report, "note", "warning", "error")
    assert {f.severity.label for f in report.findings if f.code == "VQ106"} <= {"note"}
    if right:
        assert "VQ204" not in codes(report)
    elif codes(report) & {"VQ501", "VQ502"}:
        assert "VQ204" in codes(report, "note", "warning", "error")


@pytest.mark.parametrize("order", ["flow", "taming", "first"])
def test_an_encoder_under_no_grad_in_any_order(order: str, trained: Any) -> None:
    task = Images(lambda: Autoencoder(Embedding(), order=order, cut=True))
    path = trained(task, 300)
    assert live(path, task).findings[0].code == "VQ102"
    bare = examine(path).findings
    (cut,) = (f for f in bare if f.code == "VQ101")
    assert cut.confidence.label == ("medium" if order == "flow" else "low")


@pytest.mark.parametrize("masked", [False, True])
def test_padding_that_goes_through_the_layer(masked: bool, trained: Any, tmp_path: Path) -> None:
    task = Sequences(lambda: Padded(masked))
    path = trained(task, 800)
    model = task.model().eval()
    model.load_state_dict(torch.load(path)["state_dict"])
    with torch.no_grad():
        indices = torch.cat([model(*batch)[2] for batch in task.batches("val")]).numpy()
    reports = (examine(path), live(path, task), examine(path, data={"indices": indices}))
    if masked:
        assert [codes(report) for report in reports] == [set()] * 3
        assert any("masked" in note for note in reports[2].notes)
    else:
        assert [codes(report) for report in reports] == [{"VQ511"}] * 3
    real = np.concatenate([mask.numpy() for _, mask in task.batches("val")])
    told = examine(path, data={"indices": indices, "real": real}, settings=Settings(mask="real"))
    assert told.usages("vq")["batch"].sample_size == real.sum() and not codes(told)


def test_a_model_that_is_built_otherwise_than_the_file(trained: Any) -> None:
    path = trained(Images(residual), 150)
    names = [f"quantizer.vq.layers.{level}" for level in range(4)]
    for build in (residual, partial(residual, 6), partial(residual, name="rvq")):
        report = live(path, Images(build))
        assert [layer.name for layer in report.layers] == names and not codes(report)
    with pytest.raises(UserError, match="in the checkpoint and"):
        live(path, Images(partial(residual, codes=128)))

    state = torch.load(path)
    del state["state_dict"]["encoder.0.weight"]
    torch.save(state, path)
    with pytest.raises(UserError, match=r"lacks encoder\.0\.weight"):
        live(path, Images(residual))


def test_a_last_level_that_the_dropout_never_draws(trained: Any) -> None:
    task = Images(lambda: Autoencoder(Soundstream(), "quantizer"))
    path = trained(task, 800)
    for report in (examine(path), live(path, task)):
        assert len(report.layers) == 4
        assert "quantizer[head 3]" in {f.layer for f in report.findings if f.code == "VQ506"}
    # the first level is drawn at every step, so that its shares have settled
    by_source = report.usages("quantizer[head 0]")
    assert by_source["checkpoint"].perplexity == pytest.approx(by_source["batch"].perplexity, rel=0.3)


def test_a_window_of_indices_in_the_file(trained: Any) -> None:
    task = Images(lambda: Autoencoder(Embedding(2_048, window=16_384)))
    path = trained(task, 200)
    model = task.model()
    model.load_state_dict(torch.load(path)["state_dict"])
    usage = examine(path).usages("quantize")["checkpoint"]
    assert usage.used == len(model.quantize.codebook_used.unique())
    assert usage.perplexity_low <= usage.perplexity <= usage.perplexity_high


@pytest.mark.parametrize("build", [fsq, lfq])
def test_layers_without_a_table_one_histogram_a_codebook(build: Any, trained: Any) -> None:
    task = Images(build)
    path = trained(task, 300)
    model = task.model().eval()
    model.load_state_dict(torch.load(path)["state_dict"])
    with torch.no_grad():
        indices = torch.cat([model(x)[2] for x in task.batches("val")])
    own = indices.unsqueeze(-1) if indices.ndim == 2 else indices
    dumped = examine(path, data={"indices": indices.numpy()})
    assert len(dumped.layers) == len(live(path, task).layers) == own.shape[-1]
    for head, layer in enumerate(dumped.layers):
        usage = dumped.usages(layer.name)["batch"]
        assert (usage.sample_size, usage.used) == (own[..., head].numel(), len(own[..., head].unique()))
