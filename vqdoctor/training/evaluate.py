"""The figures of a model in training: its codebooks' usage and its task, on one split, in eval mode."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.capture.call import Call
from vqdoctor.capture.error import QuantizationError
from vqdoctor.capture.layer import CapturedLayer, Change, Watched, passes
from vqdoctor.capture.numbering import Numbering
from vqdoctor.capture.observe import Scored
from vqdoctor.capture.reader import Reader
from vqdoctor.capture.vectors import rows, unrows
from vqdoctor.core.evidence.codebook import ACTIVE_SHARE
from vqdoctor.core.paired import Paired
from vqdoctor.core.retraining import Figures, LayerFigures
from vqdoctor.core.skill import SKILL, uses_z_e
from vqdoctor.metrics.calibration import (
    balanced_skill,
    calibration_difference,
    chance_accuracy,
    expected_calibration_error,
    softmax,
    surprise,
)
from vqdoctor.metrics.entropy import grassberger_entropy, plug_in_entropy
from vqdoctor.metrics.expectation import expected_active
from vqdoctor.metrics.geometry import histogram_quantiles
from vqdoctor.metrics.interval import paired_interval
from vqdoctor.models.task import Batch, Task
from vqdoctor.models.untouched import in_eval_mode
from vqdoctor.vq.outlier import others

Logits = NDArray[np.float32]
MOST_SURPRISE = 87.0
"""Nats that one sample counts at most: a probability of 1e-38, the least that float32 tells from nothing."""
TOLD = 0.02
"""Least share of the entropy of the labels that the class scores of a model tell which knows its task."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """A model on one split.

    Attributes:
        figures: its figures.
        right: whether each sample's label is the one it gives, bool [samples]; None where the task has none.
        logits: class scores [samples, classes], where `right` is known.
        labels: class labels [samples], where `right` is known.
        losses: mean task loss of each batch, and its samples.
    """

    figures: Figures
    right: NDArray[np.bool_] | None
    logits: Logits | None = None
    labels: NDArray[np.int64] | None = None
    losses: tuple[tuple[float, int], ...] = ()


def evaluate(
    model: torch.nn.Module,
    task: Task,
    batches: Iterable[Batch],
    layers: tuple[CapturedLayer, ...],
    change: Change | None = None,
) -> Figures | None:
    """Return the figures of a model on some batches; None where there are none. See `measure`."""
    found = measure(model, task, batches, layers, change)
    return None if found is None else found.figures


def measure(
    model: torch.nn.Module,
    task: Task,
    batches: Iterable[Batch],
    layers: tuple[CapturedLayer, ...],
    change: Change | None = None,
) -> Measured | None:
    """Run the batches in eval mode, without gradients; None where there are none.

    The model's modes are as before afterwards.

    Args:
        model: the model.
        task: its task.
        batches: the batches of one split.
        layers: its VQ layers.
        change: gives the tensor that the model gets in place of z_q, such as `bypass`.
    """
    counts = {layer.name: torch.zeros(layer.num_codes, dtype=torch.float64) for layer in layers}
    errors = {layer.name: QuantizationError() for layer in layers}
    readers = {layer: replace(layer.reader, numbering=Numbering()) for layer in layers}
    untold: set[str] = set()
    scores: list[Scored] = []
    with in_eval_mode(model), torch.no_grad():
        for batch, losses, watched in passes(model, task, batches, layers, change):
            scores.append(Scored.of(losses, batch))
            for layer in layers:
                errors[layer.name].add(layer, watched)
                chosen = _counts(layer, watched, readers[layer], losses.mask)
                if chosen is None:
                    untold.add(layer.name)
                else:
                    counts[layer.name] += chosen
    if not scores:
        return None
    whole = Scored.join(scores)
    logits, labels = whole.logits, whole.labels
    right = ece = skill = None
    if logits is not None and labels is not None and logits.ndim == 2 and np.isfinite(logits).all():
        right, ece = logits.argmax(axis=1) == labels, expected_calibration_error(softmax(logits), labels)
        skill = balanced_skill(logits, labels)
    figures = Figures(
        loss=whole.loss,
        samples=whole.samples,
        accuracy=None if right is None else float(right.mean()),
        ece=ece,
        chance=None if right is None or labels is None else chance_accuracy(labels),
        balanced_skill=skill,
        layers={
            layer.name: _figures(counts[layer.name].numpy(), layer.num_codes, errors[layer.name].share)
            for layer in layers
            if layer.name not in untold
        },
    )
    known = right is not None
    return Measured(
        figures=figures,
        right=right,
        logits=logits if known else None,
        labels=labels if known else None,
        losses=tuple((score.loss, score.samples) for score in scores),
    )


def _counts(
    layer: CapturedLayer, watched: Watched, reader: Reader, mask: torch.Tensor | None
) -> torch.Tensor | None:
    """Return how often a pass chose each code; of a layer that tells none, how often each output came."""
    found = layer.counts(watched, mask=mask)
    if found is not None or "codebook" in layer.view.keys:
        return found
    first = next(iter(layer.calls(watched)), None)
    codes = None if first is None else reader.codes(first)
    if codes is None:
        return None
    return torch.bincount(torch.from_numpy(codes.ravel()), minlength=layer.num_codes).double()


def compared(logits: Logits, without_vq: Logits, labels: NDArray[np.int64]) -> Paired | None:
    """Return two models compared sample by sample; None where the samples are not the same.

    Args:
        logits: class scores of the retrained model, [samples, classes].
        without_vq: those of the one without VQ, in the same order.
        labels: class labels [samples].
    """
    if logits.shape != without_vq.shape:
        return None
    right, other = (scores.argmax(axis=1) == labels for scores in (logits, without_vq))
    gained, lost = int((right & ~other).sum()), int((other & ~right).sum())
    low, high = paired_interval(gained, lost, len(right))
    ece_low, ece_high = calibration_difference(softmax(logits), softmax(without_vq), labels)
    return Paired(
        samples=len(right), gained=gained, lost=lost, low=low, high=high, ece_low=ece_low, ece_high=ece_high
    )


def is_worse(after: Measured, before: Measured) -> bool:
    """Whether a model does its task worse than another one on the same samples.

    The accuracy decides, sample by sample; without labels it is the task loss. Where one of them tells the
    classes apart and the other does not, that decides: of a rare event it may guess the frequent class.
    """
    pairs = None
    skills = [model.figures.balanced_skill for model in (after, before)]
    least, most = min(skill or 0.0 for skill in skills), max(skill or 0.0 for skill in skills)
    if not math.isfinite(after.figures.loss):
        return True
    if least <= 0 < SKILL <= most and None not in skills:
        return (skills[0] or 0.0) < (skills[1] or 0.0)
    if after.logits is not None and before.logits is not None and after.labels is not None:
        pairs = compared(after.logits, before.logits, after.labels)
    if pairs is not None:
        return pairs.behind
    return after.figures.loss > before.figures.loss


def has_learned(model: Measured, one_code: float) -> bool:
    """Whether a model knows anything of its task.

    With labels by its accuracy, or by class scores that tell more than how frequent each label is: of a rare
    event a sound model may guess the more frequent label each time. Without labels by the worth of z_e.

    Args:
        model: the model on a split.
        one_code: the task loss of the model without VQ with the mean vector in place of each z_e.
    """
    if model.logits is None or model.labels is None:
        return uses_z_e(model.figures.loss, one_code)
    shares = np.bincount(model.labels) / len(model.labels)
    unknown = -float(sum(share * math.log(share) for share in shares if share))
    told = unknown - float(np.minimum(surprise(model.logits, model.labels), MOST_SURPRISE).mean())
    return model.figures.has_learned or told > TOLD * unknown


def one_vector(layer: CapturedLayer, call: Call) -> torch.Tensor:
    """Let the model have the mean of a batch's z_e in place of each: the same model without any code."""
    vectors = rows(call.z_e, layer.reader.axis(call))
    mean = vectors.mean(dim=(0, 1), keepdim=True).expand_as(vectors).contiguous()
    return unrows(mean, call.z_e.shape, layer.reader.axis(call))


def _figures(counts: np.ndarray[Any, Any], num_codes: int, error: float | None) -> LayerFigures:
    vectors, rest = int(counts.sum()), others(counts)
    perplexity = math.exp(float(grassberger_entropy(counts))) if vectors else 0.0
    shared = vectors if rest is None else int(rest.sum())
    return LayerFigures(
        num_codes=num_codes,
        vectors=vectors,
        used=int((counts > 0).sum()),
        active=int((counts * num_codes > ACTIVE_SHARE * shared).sum()),
        expected_active=expected_active(num_codes, shared, ACTIVE_SHARE) if vectors else 0.0,
        perplexity=min(float(num_codes), max(1.0, perplexity)) if vectors else 0.0,
        rest_perplexity=None if rest is None else math.exp(float(plug_in_entropy(rest))),
        quantiles=histogram_quantiles(counts),
        error=error,
    )
