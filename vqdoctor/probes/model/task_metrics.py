"""How the model does its task with its codes, without them, and with them tampered with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from vqdoctor.capture.call import Call
from vqdoctor.capture.layer import CapturedLayer, Change, bypass
from vqdoctor.capture.observe import Scored
from vqdoctor.capture.vectors import rows, unrows
from vqdoctor.core.evidence import TaskMetrics
from vqdoctor.metrics.calibration import (
    accuracy,
    balanced_skill,
    calibration_interval,
    chance_accuracy,
    expected_calibration_error,
    softmax,
)
from vqdoctor.models.task import Split
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import of_model
from vqdoctor.probes.probe import Missing

SPLIT: Split = "val"
SAME = 1e-2
"""Relative difference up to which the task loss is the cross-entropy: the means over batches of unequal size
differ by less, and a reconstruction term adds more."""


def measure(context: ModelContext) -> TaskMetrics:
    """Return the metrics on the val split, all VQ layers tampered with at once."""
    base = context.scored.get(SPLIT)
    seen = context.seen.get(SPLIT)
    if base is None or not seen:
        raise Missing("no VQ layer's z_q is seen" if base else "the task serves no val split")
    if base.logits is not None and np.isnan(base.logits).any():
        wrong = int(np.isnan(base.logits).any(axis=-1).sum())
        raise Missing(f"the class scores of {wrong:,} of {base.samples:,} samples are NaN")
    context.progress("tampering with the codes")
    fits = all(layer.z_e.shape[-1] == len(layer.z_q_mean) for layer in seen.values())
    bypassed = context.score(SPLIT, bypass) if fits else None
    generator = torch.Generator().manual_seed(context.seed)

    def shuffle(layer: CapturedLayer, vectors: torch.Tensor) -> torch.Tensor:
        order = torch.rand(vectors.shape[:2], generator=generator).argsort(dim=1).to(vectors.device)
        return vectors.gather(1, order[..., None].expand_as(vectors))

    def average(layer: CapturedLayer, vectors: torch.Tensor) -> torch.Tensor:
        mean = seen[layer.name].z_q_mean
        return mean.to(vectors.dtype).expand_as(vectors).contiguous()

    shuffled, mean_code = (context.score(SPLIT, _by_vector(change)) for change in (shuffle, average))
    ece = ece_low = ece_high = None
    if base.logits is not None and base.labels is not None:
        ece = expected_calibration_error(softmax(base.logits), base.labels)
        ece_low, ece_high = calibration_interval(softmax(base.logits), base.labels, context.seed)
    return TaskMetrics(
        source="batch",
        sample_size=base.samples,
        split=SPLIT,
        held_out=not {"train", SPLIT} <= {*context.seen} or not context.is_same_data(SPLIT, "train"),
        accuracy=_accuracy(base),
        bypass_accuracy=_accuracy(bypassed),
        shuffled_accuracy=_accuracy(shuffled),
        mean_code_accuracy=_accuracy(mean_code),
        chance_accuracy=None if base.labels is None else chance_accuracy(base.labels),
        balanced_skill=max((_skill(s) for s in (base, bypassed) if s and s.labels is not None), default=None),
        ece=ece,
        ece_low=ece_low,
        ece_high=ece_high,
        loss=base.loss,
        bypass_loss=bypassed.loss if bypassed else None,
        shuffled_loss=shuffled.loss,
        mean_code_loss=mean_code.loss,
        classes=_classes(base),
    )


def _by_vector(change: Callable[[CapturedLayer, torch.Tensor], torch.Tensor]) -> Change:
    """Return the change of z_q that changes its vectors [B, positions, D]."""

    def changed(layer: CapturedLayer, call: Call) -> torch.Tensor:
        assert call.z_q is not None
        axis = layer.reader.axis(call)
        return unrows(change(layer, rows(call.z_q, axis)), call.z_q.shape, axis)

    return changed


def _classes(scored: Scored) -> int | None:
    """Return the number of classes if the task loss is the cross-entropy of the scores; else None."""
    if scored.logits is None or scored.labels is None or scored.logits.ndim != 2:
        return None
    logits, labels = torch.from_numpy(scored.logits), torch.from_numpy(scored.labels)
    if labels.shape != logits.shape[:1]:
        return None
    entropy = float(torch.nn.functional.cross_entropy(logits, labels))
    pure = abs(scored.loss - entropy) <= SAME * max(entropy, SAME)
    return logits.shape[1] if pure else None


def _accuracy(scored: Scored | None) -> float | None:
    if scored is None or scored.logits is None or scored.labels is None:
        return None
    return accuracy(scored.logits, scored.labels)


def _skill(scored: Scored) -> float:
    if scored.logits is None or scored.labels is None or scored.logits.ndim != 2:
        return 0.0
    return balanced_skill(scored.logits, scored.labels)


PROBE = of_model(TaskMetrics, measure, mode="eval")
