"""The figures of a model in training: its codebooks' usage and its task, on one split, in eval mode."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from vqdoctor.capture.layer import CapturedLayer, Change, passes
from vqdoctor.capture.observe import Scored
from vqdoctor.core.evidence.codebook import ACTIVE_SHARE
from vqdoctor.core.retraining import Figures, LayerFigures
from vqdoctor.metrics.calibration import accuracy, expected_calibration_error, softmax
from vqdoctor.metrics.entropy import grassberger_entropy
from vqdoctor.metrics.expectation import expected_active
from vqdoctor.metrics.geometry import histogram_quantiles
from vqdoctor.models.task import Batch, Task


def evaluate(
    model: torch.nn.Module,
    task: Task,
    batches: Iterable[Batch],
    layers: tuple[CapturedLayer, ...],
    change: Change | None = None,
) -> Figures | None:
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
    untold: set[str] = set()
    scores: list[Scored] = []
    with in_eval_mode(model), torch.no_grad():
        for batch, losses, watched in passes(model, task, batches, layers, change):
            scores.append(Scored.of(losses, batch))
            for layer in layers:
                chosen = layer.counts(watched)
                if chosen is None:
                    untold.add(layer.name)
                else:
                    counts[layer.name] += chosen
    if not scores:
        return None
    whole = Scored.join(scores)
    logits, labels = whole.logits, whole.labels
    right = ece = None
    if logits is not None and labels is not None and logits.ndim == 2 and np.isfinite(logits).all():
        right, ece = accuracy(logits, labels), expected_calibration_error(softmax(logits), labels)
    return Figures(
        loss=whole.loss,
        samples=whole.samples,
        accuracy=right,
        ece=ece,
        layers={
            layer.name: _figures(counts[layer.name].numpy(), layer.num_codes)
            for layer in layers
            if layer.name not in untold
        },
    )


def _figures(counts: np.ndarray[Any, Any], num_codes: int) -> LayerFigures:
    vectors = int(counts.sum())
    perplexity = math.exp(float(grassberger_entropy(counts))) if vectors else 0.0
    return LayerFigures(
        num_codes=num_codes,
        vectors=vectors,
        used=int((counts > 0).sum()),
        active=int((counts * num_codes > ACTIVE_SHARE * vectors).sum()),
        expected_active=expected_active(num_codes, vectors, ACTIVE_SHARE) if vectors else 0.0,
        perplexity=min(float(num_codes), max(1.0, perplexity)) if vectors else 0.0,
        quantiles=histogram_quantiles(counts),
    )


@contextmanager
def in_eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Run a model in eval mode; every module's own mode comes back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
