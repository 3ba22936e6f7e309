"""VQ losses with and without a gradient, in really trained models."""

from __future__ import annotations

from typing import Any

import pytest
from live_models import live, on_digits
from torch import nn

from vqdoctor.models.task import Losses
from vqdoctor.probes.model import loss_path, loss_use
from vqdoctor.probes.model.loss_path import _own, _Seen

PROBES = (loss_path, loss_use)


class Silent:
    """A task that does not report the VQ loss, which the layer returns all the same."""

    def __init__(self, task: Any) -> None:
        self.task, self.vq_weight = task, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        found = self.task.losses(model, batch)
        return Losses(task=found.task, vq=None, logits=found.logits, labels=found.labels)


@pytest.mark.parametrize(
    ("quantizer", "alive"),
    [("sphere", False), ("sphere-sound", True), ("unnormalised", True), ("ema", True)],
)
def test_a_loss_from_a_buffer_and_a_detached_input_has_no_gradient(quantizer: str, alive: bool) -> None:
    model, task = on_digits(quantizer, epochs=1)
    evidence, findings = live(model, task, PROBES, "VQ205", "VQ206")
    assert evidence["loss-path"].alive is alive
    assert set(findings) == (set() if alive else {"VQ206"})


def test_the_same_is_seen_where_the_task_reports_no_vq_loss() -> None:
    model, task = on_digits("sphere", epochs=1)
    evidence, findings = live(model, Silent(task), PROBES, "VQ205", "VQ206")
    assert (evidence["loss-path"].reported, evidence["loss-path"].alive) == (False, False)
    assert findings["VQ206"].confidence.label == "medium"


def test_a_frozen_encoder_is_no_fault_of_the_loss() -> None:
    model, task = on_digits("sphere", epochs=1)
    model.encoder.requires_grad_(False)
    evidence, findings = live(model, task, PROBES, "VQ205", "VQ206")
    assert evidence["loss-path"].alive is None
    assert findings == {}


def test_an_output_that_stands_still_is_no_loss() -> None:
    def seen(error: float, loss: float) -> _Seen:
        return _Seen(vectors=4, reported=None, trains=True, error=error, outputs=((loss, False),))

    assert _own([seen(1.0, 3.7), seen(4.0, 3.7)]) is None
    assert _own([seen(1.0, 1.25), seen(4.0, 5.0)]) == (1.25, False)
