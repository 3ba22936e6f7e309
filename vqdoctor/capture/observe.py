"""A split in eval mode: the calls of every layer, and the model's answers to its task."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.capture.layer import Change, passes
from vqdoctor.capture.reader import Codes
from vqdoctor.capture.seen import Seen, fetched, join, read
from vqdoctor.core.frozen import frozen
from vqdoctor.models.device import moved
from vqdoctor.models.task import Batch, Losses, Split, Task
from vqdoctor.models.tensors import tensors_of
from vqdoctor.models.untouched import seed_all

if TYPE_CHECKING:
    from vqdoctor.capture.run import Capture

SPLITS: tuple[Split, ...] = ("train", "stop", "val")


WHOLE = 1e-3
"""Largest distance from 1 of the sum of a sample's shares of each class."""


@dataclass(kw_only=True)
class Scored:
    """The task's answers on one split, or on one batch of it.

    Attributes:
        samples: how many samples.
        loss: mean task loss.
        logits: class scores, float32 [samples, classes], or None.
        labels: class labels [samples], or None. Samples without a label (-100, or any other that is not
            the number of a class) are left out of both.
    """

    samples: int
    loss: float
    logits: NDArray[np.float32] | None
    labels: NDArray[np.int64] | None

    @classmethod
    def of(cls, losses: Losses, batch: Batch) -> Scored:
        """Return the answers on one batch."""
        logits, labels = losses.logits, losses.labels
        first = next((t for t in (labels, logits, *tensors_of(batch)) if t is not None and t.ndim), None)
        if logits is not None and labels is not None and logits.ndim == 2:
            logits, labels = _of_classes(logits, labels)
        return cls(
            samples=1 if first is None else len(first),
            loss=float(losses.task),
            logits=None if logits is None else logits.float().cpu().numpy(),
            labels=None if labels is None else labels.long().cpu().numpy(),
        )

    @classmethod
    def join(cls, parts: Sequence[Scored]) -> Scored:
        """Return the answers on all batches, of which there is at least one."""
        samples = sum(p.samples for p in parts)
        logits = [p.logits for p in parts if p.logits is not None]
        labels = [p.labels for p in parts if p.labels is not None]
        whole = np.concatenate(labels) if len(labels) == len(parts) else None
        unlabelled = whole is not None and not len(whole)
        return cls(
            samples=samples,
            loss=sum(p.loss * p.samples for p in parts) / samples,
            logits=np.concatenate(logits) if len(logits) == len(parts) and not unlabelled else None,
            labels=None if unlabelled else whole,
        )


def _of_classes(
    logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
    """Return scores [N, C] and labels [N] of the samples that have a label; None where they do not fit.

    Args:
        logits: [N, C]; a single column is the score of 1 against that of 0.
        labels: numbers of classes [N] or [N, 1], or shares of each class [N, C].
    """
    if labels.is_floating_point() and labels.shape == logits.shape and logits.shape[1] > 1:
        if bool((labels < 0).any()) or bool(((labels.sum(1) - 1).abs() > WHOLE).any()):
            return None, None  # several labels of one sample are no class of it
        labels = labels.argmax(1)
    labels = labels.squeeze(1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    whole = not labels.is_floating_point() or bool((labels == labels.round()).all())
    if labels.shape != logits.shape[:1] or not whole:
        return None, None
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    known = (labels >= 0) & (labels < logits.shape[1])
    return logits[known], labels[known]


@frozen
class Observed:
    """The observations of a split.

    Attributes:
        seen: layer to what it did.
        bare: layer to its codes [rows, positions], of layers that show only these.
        scored: the task's answers; None where the split has no batches.
    """

    seen: dict[str, Seen]
    bare: dict[str, Codes]
    scored: Scored | None


def observe(capture: Capture, split: Split, change: Change | None = None) -> Observed:
    """Run a split in eval mode on a copy; with a change in place of z_q, for the task's answers alone."""
    model = capture.copy(training=False)
    layers = tuple(layer.on(model) for layer in capture.layers.values() if layer.path is not None)
    parts: dict[str, list[Seen]] = {}
    bare: dict[str, list[Codes]] = {}
    scores: list[Scored] = []
    seed_all(capture.seed)  # a Gumbel layer may draw in eval mode too
    batches = (moved(batch, capture.device) for batch in _batches(capture.task, split))
    with torch.no_grad():
        ran = passes(model, capture.task, batches, layers, change)
        for number, (batch, losses, watched) in enumerate(ran, start=1):
            capture.progress(f"running the {split} split{'' if change is None else ' again'}: batch {number}")
            scores.append(Scored.of(losses, batch))
            samples = scores[-1].samples if scores[-1].labels is not None else None
            for layer in layers if change is None else ():
                if layer.maps:
                    calls = [call for m in (layer.module, *layer.shared) for call in watched[m].mapped]
                    asked = [] if layer.lookup is None else layer.reader.lookups(watched[layer.lookup])
                    if (seen := read(layer.reader, calls, asked, samples, losses.mask)) is not None:
                        parts.setdefault(layer.name, []).append(seen)
                elif (codes := fetched(layer.reader, watched[layer.module])) is not None:
                    bare.setdefault(layer.name, []).append(codes)
    joined = {name: join(found) for name, found in parts.items()}
    for layer in layers:
        if (seen := joined.get(layer.name)) is not None and (pair := seen.asked_and_chosen) is not None:
            layer.reader.learn(*pair)
    return Observed(
        seen=joined,
        bare={name: np.concatenate(found) for name, found in bare.items()},
        scored=Scored.join(scores) if scores else None,
    )


def _batches(task: Task, split: Split) -> Iterator[Batch]:
    batches = cast("Callable[[Split], Iterator[Batch]]", task.batches)
    if split != "stop":
        yield from batches(split)
        return
    # A Task need not serve "stop"; however it says so, the split is then empty.
    with contextlib.suppress(KeyError, ValueError, NotImplementedError):
        yield from batches(split)
