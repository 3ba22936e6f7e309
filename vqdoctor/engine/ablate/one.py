"""One training of a study: trained, measured, and judged on data that did not train it."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.core.ablation import AblationFigures, CodebookFigures, Cost, Run
from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence.codebook import ACTIVE_SHARE
from vqdoctor.core.retraining import Epoch, LayerFigures
from vqdoctor.engine.ablate.cells import Training
from vqdoctor.engine.ablate.subject import Subject
from vqdoctor.engine.retrain import trainable
from vqdoctor.metrics.calibration import (
    chance_accuracy,
    expected_calibration_error,
    softmax,
    temperature_of,
)
from vqdoctor.metrics.conformal import conformal_sets
from vqdoctor.metrics.entropy import plug_in_entropy
from vqdoctor.metrics.interval import Z, share_interval
from vqdoctor.models.untouched import same_randomness
from vqdoctor.reference.chain.measure import StageMeter
from vqdoctor.reference.chain.model import ChainClassifier
from vqdoctor.training.evaluate import Measured
from vqdoctor.training.trainable import Trainable
from vqdoctor.training.trainer import Trainer

THREADS = 1
"""Threads of every training on the CPU: with another number sums have another order and other last digits."""
NEAR_ACCURACY, NEAR_LOSS = 0.01, 0.05
"""How near the best an epoch must be to count as converged: a point, or a share of the fall of the loss."""
_MIB = 2**20


class Bench:
    """The models of a subject, each opened once and kept, to train any number of cells from."""

    def __init__(self, subject: Subject, trainings: Mapping[str, Training]) -> None:
        torch.set_num_threads(THREADS)
        self.subject, self.trainings = subject, trainings
        self._stack = contextlib.ExitStack()
        self._open: dict[str, Trainable] = {}

    def trainable(self, run: str) -> Trainable:
        """Return the model of a training.

        Raises:
            UserError: if the subject has no such model, or it cannot be trained.
        """
        model = self.trainings[run].model
        if model not in self._open:
            session = self._stack.enter_context(self.subject.open(model))
            self._open[model] = trainable(session)
        return self._open[model]

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def train(self, run: str, seed: int, heard: Callable[[Epoch], None] = lambda _: None) -> tuple[Run, Cost]:
        """Train a cell's model with one seed; a training that cannot be done is a run that says why."""
        training, started = self.trainings[run], time.monotonic()
        failed, figures, device = "", None, torch.device("cpu")
        try:
            found = self.trainable(run)
            _forget_peak()
            started = time.monotonic()  # the first training of a model alone opens it
            device = found.context.device
            with same_randomness(seed):
                plan = replace(training.plan, seed=seed)
                trainer = found.trainer(plan, without_vq=training.without_vq)
                trainer.run(heard)
                figures = _figures(trainer)
        except UserError as error:
            failed = str(error)
        cost = Cost(
            run=run, seed=seed, seconds=time.monotonic() - started, peak_memory_mb=_peak_memory(device)
        )
        return Run(run=run, seed=seed, figures=figures, failed=failed), cost


def _figures(trainer: Trainer) -> AblationFigures:
    """Measure a trained model.

    Raises:
        UserError: if there is no data to measure it on, or its loss is not finite there.
    """
    meter = StageMeter(trainer.model) if isinstance(trainer.model, ChainClassifier) else None
    with meter.watching() if meter else contextlib.nullcontext():
        val = trainer.measure()
    stop = trainer.measure("stop")
    if val is None:
        raise UserError("there is no val split to measure on", "serve one from task.batches")
    if not np.isfinite(val.figures.loss):
        raise UserError("the task loss of the val split is not finite", "look for NaN in the data")
    layers = () if trainer.without_vq else trainer.layers
    told = val.figures.layers
    low, high = _loss_interval(val.losses)
    return AblationFigures(
        loss=val.figures.loss,
        loss_low=low,
        loss_high=high,
        samples=val.figures.samples,
        accuracy=val.figures.accuracy,
        ece=val.figures.ece,
        **_judged(val, stop),
        parameters=_parameters(trainer),
        convergence_epoch=_converged(trainer.rows),
        layers={layer.name: _codebook(layer, told[layer.name]) for layer in layers if layer.name in told},
        stages=meter.figures(val.labels) if meter is not None and val.labels is not None else None,
    )


def _judged(val: Measured, stop: Measured | None) -> dict[str, Any]:
    """Return the figures of a classifier, by name."""
    if val.right is None or val.logits is None or val.labels is None:
        return {}
    low, high = share_interval(float(val.right.mean()), len(val.right))
    found = {"accuracy_low": low, "accuracy_high": high, "majority": chance_accuracy(val.labels)}
    if stop is None or stop.logits is None or stop.labels is None:
        return found
    temperature = temperature_of(stop.logits, stop.labels)
    scaled = softmax(val.logits / temperature)
    sets = conformal_sets(softmax(stop.logits / temperature), stop.labels, scaled)
    return found | {
        "temperature": temperature,
        "ece_scaled": expected_calibration_error(scaled, val.labels),
        "coverage": float(sets[np.arange(len(val.labels)), val.labels].mean()),
        "set_size": float(sets.sum(axis=1).mean()),
    }


def _loss_interval(losses: Sequence[tuple[float, int]]) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a mean loss, from the batches' own and their samples."""
    if len(losses) < 2:
        return None, None
    values, samples = np.array(losses).T
    mean = float(values @ samples / samples.sum())
    variance = float(samples @ (values - mean) ** 2 / samples.sum()) / (len(values) - 1)
    return mean - Z * variance**0.5, mean + Z * variance**0.5


def _codebook(layer: CapturedLayer, seen: LayerFigures) -> CodebookFigures:
    found = CodebookFigures(
        num_codes=seen.num_codes,
        perplexity=seen.perplexity,
        active=seen.active,
        expected_active=seen.expected_active,
        error=seen.error,
    )
    counts = None if layer.view.derived else layer.codebook.counts
    if counts is None or not bool((counts >= 0).all()) or float(counts.sum()) <= 0:
        return found
    usage = counts.double().cpu().numpy()
    return replace(
        found,
        ema_perplexity=float(np.exp(plug_in_entropy(usage))),
        ema_active=int((usage * len(usage) > ACTIVE_SHARE * usage.sum()).sum()),
    )


def _parameters(trainer: Trainer) -> int:
    """Return how many trained numbers a model has, with the codes, and without VQ less all of its layers."""
    left_out = {id(p) for layer in trainer.layers for p in layer.module.parameters() if trainer.without_vq}
    counted = {id(p): p.numel() for p in trainer.model.parameters() if id(p) not in left_out}
    for layer in () if trainer.without_vq else trainer.layers:
        codes = layer.stored()
        if codes is not None:
            counted[id(codes)] = codes.numel()
    return sum(counted.values())


def _converged(rows: Sequence[Epoch]) -> int | None:
    """Return the first epoch that is as good as the best on the stop split; None without one."""
    stops = [row.stop for row in rows if row.stop is not None]
    if not stops:
        return None
    accuracies = [stop.accuracy for stop in stops if stop.accuracy is not None]
    if len(accuracies) == len(stops):
        good = [accuracy >= max(accuracies) - NEAR_ACCURACY for accuracy in accuracies]
    else:
        losses = [stop.loss for stop in stops]
        bar = min(losses) + NEAR_LOSS * (losses[0] - min(losses))
        good = [loss <= bar for loss in losses]
    return 1 + good.index(True)


def _forget_peak() -> None:
    """Let the system count the peak of this process's memory anew, where it can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory(device: torch.device) -> float | None:
    """Return the most memory in use since then, in MiB; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(found[1]) / 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MIB if sys.platform == "darwin" else peak / 1024
