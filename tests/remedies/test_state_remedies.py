"""The lines that the remedies of a codebook's state show do what they say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vqdoctor.checks import all_checks
from vqdoctor.remedies import with_advice

CODE = {remedy.name: remedy.code for remedy in with_advice(all_checks())}


def run(name: str, **names: object) -> dict[str, object]:
    scope: dict[str, object] = {"torch": torch, **names}
    exec(CODE[name], scope)
    return scope


def test_a_flag_in_a_buffer_is_saved() -> None:
    vq = nn.Module()
    run("save-init-flag", vq=vq)
    assert bool(vq.state_dict()["initted"])


def test_weights_that_do_not_load_are_noticed() -> None:
    model = nn.Linear(2, 2)
    run("load-trained-weights", model=model, state=model.state_dict())
    with pytest.raises(AssertionError, match="bias"):
        run("load-trained-weights", model=model, state={"weight": model.weight})


@pytest.mark.parametrize("training", [True, False])
def test_the_guard_lets_the_ema_run_in_training_only(training: bool) -> None:
    vq = SimpleNamespace(training=training, ema_cluster_size=torch.ones(3))
    run("guard-by-training", vq=vq, counts=torch.tensor([4.0, 0.0, 0.0]), decay=0.9)
    assert torch.equal(vq.ema_cluster_size, torch.ones(3)) is not training


def test_an_exempt_codebook_keeps_its_length() -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(3, 3), "codes": nn.Embedding(5, 3)})
    codebook = model["codes"].weight
    start, weight = codebook.detach().clone(), model["encoder"].weight.detach().clone()
    optimizer = run("exempt-codebook", model=model, codebook=codebook)["optimizer"]
    assert isinstance(optimizer, torch.optim.AdamW)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(codebook, start) and not torch.equal(model["encoder"].weight, weight)


def test_a_relative_threshold_is_under_the_mean_count_whatever_the_batch() -> None:
    for vectors, codes in ((16, 1024), (1_200, 4_096), (100_000, 64)):
        done = run("relative-threshold", vectors_per_batch=vectors, num_codes=codes)
        assert done["threshold_ema_dead_code"] == pytest.approx(0.1 * vectors / codes)


def test_the_loader_shuffles_anew() -> None:
    torch.manual_seed(0)
    loader = run("shuffle", data=list(range(64)))["loader"]
    assert isinstance(loader, torch.utils.data.DataLoader)
    first, second = ([int(i) for batch in loader for i in batch] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(64)) and first != second
