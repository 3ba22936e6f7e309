"""What a model in training can do: its codebooks' usage and its task, on one split, in eval mode."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from vqdoctor.core.evidence.codebook import ACTIVE_SHARE
from vqdoctor.core.retraining import Figures, LayerFigures
from vqdoctor.metrics.calibration import accuracy, expected_calibration_error, softmax
from vqdoctor.metrics.entropy import grassberger_entropy
from vqdoctor.metrics.expectation import expected_active
from vqdoctor.metrics.geometry import histogram_quantiles
from vqdoctor.models.task import Batch, Task
from vqdoctor.training.layer import Change, Layer, watching


def evaluate(
    model: torch.nn.Module,
    task: Task,
    batches: Iterable[Batch],
    layers: tuple[Layer, ...],
    change: Change | None = None,
) -> Figures | None:
    """Run the batches in eval mode, without gradients; None where there are none.

    The model's modes are as before afterwards.

    Args:
        model: the model.
        task: its task.
        batches: the batches of one split.
        layers: its VQ layers.
        change: what the model gets in place of z_q, such as `bypass`.
    """
    counts = {layer.name: torch.zeros(layer.num_codes, dtype=torch.float64) for layer in layers}
    untold: set[str] = set()
    losses: list[tuple[float, int]] = []
    logits: list[np.ndarray[Any, Any]] = []
    labels: list[np.ndarray[Any, Any]] = []
    with in_eval_mode(model), torch.no_grad():
        for batch in batches:
            with watching(layers, change) as watched:
                found = task.losses(model, batch)
            if found.logits is not None and found.labels is not None:
                logits.append(found.logits.float().cpu().numpy())
                labels.append(found.labels.cpu().numpy())
            losses.append((float(found.task), len(labels[-1]) if labels else 1))
            for layer in layers:
                chosen = layer.counts(watched)
                if chosen is None:
                    untold.add(layer.name)
                else:
                    counts[layer.name] += chosen
    if not losses:
        return None
    samples = sum(size for _, size in losses)
    scores = np.concatenate(logits) if logits and logits[0].ndim == 2 else None
    truth = np.concatenate(labels) if scores is not None else None
    known = scores is not None and truth is not None and bool(np.isfinite(scores).all())
    return Figures(
        loss=sum(loss * size for loss, size in losses) / samples,
        samples=samples,
        accuracy=accuracy(scores, truth) if known and scores is not None and truth is not None else None,
        ece=_ece(scores, truth) if known and scores is not None and truth is not None else None,
        layers={
            layer.name: _figures(counts[layer.name].numpy(), layer.num_codes)
            for layer in layers
            if layer.name not in untold
        },
    )


def _ece(scores: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    return expected_calibration_error(softmax(scores), truth)


def _figures(counts: np.ndarray[Any, Any], num_codes: int) -> LayerFigures:
    vectors = int(counts.sum())
    return LayerFigures(
        num_codes=num_codes,
        vectors=vectors,
        used=int((counts > 0).sum()),
        active=int((counts * num_codes > ACTIVE_SHARE * vectors).sum()),
        expected_active=expected_active(num_codes, vectors, ACTIVE_SHARE) if vectors else 0.0,
        perplexity=_perplexity(counts, num_codes) if vectors else 0.0,
        quantiles=histogram_quantiles(counts),
    )


def _perplexity(counts: np.ndarray[Any, Any], num_codes: int) -> float:
    return min(float(num_codes), max(1.0, math.exp(float(grassberger_entropy(counts)))))


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
