"""Probes know themselves: every kind of evidence has one, and what a probe says of its needs is true."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import vector_quantize_pytorch as vqp
from torch import nn

import vqdoctor.core.evidence
from vqdoctor.core.evidence import Course, Evidence, LossBalance
from vqdoctor.models.task import Losses
from vqdoctor.probes import dump, file
from vqdoctor.probes import model as model_probes
from vqdoctor.probes.probe import Probe

_spec = importlib.util.spec_from_file_location("vq_libraries", Path(__file__).with_name("libraries.py"))
assert _spec is not None and _spec.loader is not None
lib = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lib)

PROBES = {probe.measure.__module__.rpartition(".")[2]: probe for probe in model_probes.all_probes()}


class Noting(lib.ToyTask):
    """Notes the mode of every run; may keep its VQ loss to itself."""

    def __init__(self, model: nn.Module, *, tells: bool = True) -> None:
        super().__init__(model)
        self.tells, self.modes = tells, set()

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        self.modes.add("train" if model.training else "eval")
        found = super().losses(model, batch)
        return found if self.tells else replace(found, vq=None)


def levels() -> nn.Module:
    torch.manual_seed(0)
    trained = {"ema_update": False, "learnable_codebook": True}  # by the gradient of its VQ loss
    return lib.Classifier(vqp.ResidualVQ(dim=lib.DIM, codebook_size=lib.CODES, num_quantizers=2, **trained))


def without_codebook() -> nn.Module:
    torch.manual_seed(0)
    return lib.Classifier(vqp.FSQ(levels=[5, 5, 5], dim=lib.DIM))


@cache
def context(**told: bool) -> model_probes.ModelContext:
    model = levels()
    return replace(lib.context(model, Noting(model, **told)), probe_steps=2, experiment_steps=2)


def kinds(items: Iterable[object]) -> set[tuple[type, str | None]]:
    return {(type(item), item.layer) for item in items if isinstance(item, Evidence)}


def test_every_kind_of_evidence_has_a_probe() -> None:
    probes: list[Probe[Any]] = [*file.all_probes(), *dump.all_probes(), *model_probes.all_probes()]
    probed = {kind for probe in probes for kind in probe.kinds} | {Course}  # of a trace, which is no context
    known = vars(vqdoctor.core.evidence).values()
    assert probed == {
        kind
        for kind in known
        if isinstance(kind, type) and issubclass(kind, Evidence) and kind is not Evidence
    }


@pytest.mark.parametrize("name", PROBES)
def test_the_model_runs_in_the_modes_that_a_probe_says(name: str) -> None:
    ctx = replace(context(tells=True))
    if name == "implicit_levels":
        model = without_codebook()
        ctx = lib.context(model, Noting(model))
        ctx = ctx.others(ctx.discover())
    if name == "unsaved_table":
        model = levels()
        model.register_buffer("noise", torch.randn(4, lib.DIM), persistent=False)
        ctx = lib.context(model, Noting(model))
    assert all(layer.maps for layer in ctx.layers.values())  # which takes a run of its own
    ctx.task.modes.clear()
    list(PROBES[name].measure(ctx))
    expected = {"both": {"train", "eval"}, None: set()}
    mode = PROBES[name].mode
    assert ctx.task.modes == expected.get(mode, {mode})


@pytest.mark.parametrize("name", PROBES)
def test_without_a_known_vq_loss_only_those_that_judge_it_tell_another_story(name: str) -> None:
    told, hidden = (list(PROBES[name].measure(context(tells=tells))) for tells in (True, False))
    if PROBES[name].needs_vq_loss:
        assert hidden != told
    else:
        assert kinds(hidden) == kinds(told)


ASKS_FOR_MORE = ("batch_mixing", "input_summary", "encoder_start", "collapse_reward", "step_size")
"""More batches, a tensor alone, larger matrices than this model has, few codes in use, and an optimizer."""


@pytest.mark.parametrize("name", [name for name, probe in PROBES.items() if not probe.needs_codebook])
def test_a_layer_without_a_codebook_is_no_trouble_for_a_probe_that_asks_for_none(name: str) -> None:
    ctx = replace(lib.context(without_codebook()), experiment_steps=2)
    others = ctx.others(ctx.discover())
    assert list(others.layers) == ["vq"]
    found = list(PROBES[name].measure(others))
    if LossBalance not in PROBES[name].kinds and name not in ASKS_FOR_MORE:
        assert kinds(found) == {
            (kind, None if PROBES[name].of_model else "vq") for kind in PROBES[name].kinds
        }
