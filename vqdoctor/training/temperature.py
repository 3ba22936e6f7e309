"""The temperature of a retrained classifier: fitted to the split that stopped it, put into its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vqdoctor.metrics.calibration import MOST_TEMPERATURE, softmax, surprise, temperature_of
from vqdoctor.models.untouched import seed_all
from vqdoctor.training.evaluate import Logits, Measured
from vqdoctor.training.trainer import Trainer

LEAST_GAIN = 1.92
"""Rise of the log likelihood of all samples, in nats, from which on their temperature is not one: half of the
95 % point of the chi-squared distribution with one degree of freedom (likelihood-ratio test)."""
NEAR = 0.1
"""Largest mean distance of the probabilities to those that are wanted, as a share of the whole change."""
NO_SPLIT = "no split stops the training"
NO_SCORES = "the split that stops the training has no class scores, or not all are finite"
LARGEST = 0.99
"""Largest share of the range of temperatures, on a log scale: beyond it the likelihood has no best one."""
NO_FIT = "no temperature fits the split that stopped the training best: all of its answers are right, or none"
IN_DOUBT = "the split that stopped the training does not tell its temperature from one"
NO_LAYER = "no layer was found whose weights scale the class scores; in your source: divide these by {:.3g}"
COSTS = "the task loss would rise"


def calibrate(trainer: Trainer) -> str:
    """Divide the class scores of a trained model by the temperature that fits them, and return why not.

    The result is "" where it is done: the weights and the bias of the layer that the scores come from are
    divided, and a note of the trainer says by how much.
    """
    before = _look(trainer)
    if before is None:
        return NO_SPLIT
    if before.logits is None or before.labels is None:
        return NO_SCORES
    temperature = float(trainer.ranks.agreed(temperature_of(before.logits, before.labels)))
    if abs(math.log(temperature)) > LARGEST * math.log(MOST_TEMPERATURE):
        return NO_FIT
    if not _is_beyond_doubt(before.logits, before.labels, temperature):
        return IN_DOUBT
    for name, layer in _called(trainer, before.logits.shape[1]):
        kept = {key: p.detach().clone() for key, p in layer.named_parameters(recurse=False)}
        _set(layer, {key: value / temperature for key, value in kept.items()})
        after = _look(trainer)
        if _is_scaled(before.logits, after, temperature):
            assert after is not None
            if after.figures.loss > before.figures.loss:
                _set(layer, kept)
                return COSTS
            trainer.notes.append(
                f"calibrate: the class scores are divided by {temperature:.3g}, in the parameters of {name}, "
                f"as fitted to {len(before.labels):,} samples of the split that stopped the training"
            )
            return ""
        _set(layer, kept)
    return NO_LAYER.format(temperature)


def _look(trainer: Trainer) -> Measured | None:
    """Return the figures on the split that stops the training, with the same draws each time."""
    seed_all(trainer.plan.seed)
    return trainer.measure("stop")


def _is_beyond_doubt(logits: Logits, labels: NDArray[np.int64], temperature: float) -> bool:
    """Whether the samples are likelier at that temperature than chance makes those of a calibrated model."""
    gained = surprise(logits, labels).sum() - surprise(logits / temperature, labels).sum()
    return bool(gained > LEAST_GAIN)


def _is_scaled(logits: Logits, after: Measured | None, temperature: float) -> bool:
    """Whether a model gives these answers, and the probabilities of their scores over the temperature."""
    if after is None or after.logits is None or after.logits.shape != logits.shape:
        return False
    if (after.logits.argmax(axis=1) != logits.argmax(axis=1)).any():
        return False
    wanted = softmax(logits / temperature)
    change, missed = (np.abs(wanted - softmax(of)).mean() for of in (logits, after.logits))
    return bool(missed <= NEAR * change)


def _called(trainer: Trainer, classes: int) -> list[tuple[str, nn.Module]]:
    """Return the trained linear maps to as many channels as there are classes, the last one called first.

    Of two classes a single channel may tell.
    """
    wide = (1, 2) if classes == 2 else (classes,)
    found: dict[str, nn.Module] = {}

    def note(name: str, module: nn.Module) -> None:
        found.pop(name, None)
        found[name] = module

    with ExitStack() as stack:
        for name, module in trainer.model.named_modules():
            weight = dict(module.named_parameters(recurse=False)).get("weight")
            is_map = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
            if is_map and weight is not None and weight.requires_grad and len(weight) in wide:
                hook = module.register_forward_hook(lambda m, *_, name=name: note(name, m))
                stack.callback(hook.remove)
        trainer.measure("stop", most=1)
    return [*found.items()][::-1]


@torch.no_grad()
def _set(layer: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    for key, parameter in layer.named_parameters(recurse=False):
        parameter.copy_(values[key])
