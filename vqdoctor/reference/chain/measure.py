"""The figures of the chain's stages on one split: what they make of the sequences, beside the truth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.core.ablation import StageFigures
from vqdoctor.core.evidence import ACTIVE_SHARE
from vqdoctor.reference.chain.model import ChainClassifier
from vqdoctor.reference.chain.sequences import durations


class StageMeter:
    """Collects the outputs of a chain, batch by batch."""

    def __init__(self, model: ChainClassifier) -> None:
        self._model = model
        self._classes: list[NDArray[np.int64]] = []
        self._states: list[NDArray[np.int64]] = []
        self._clusters: list[NDArray[np.int64]] = []
        self._expected: NDArray[np.float64] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Collect all that the model does meanwhile."""
        handle = self._model.register_forward_hook(lambda _module, _inputs, output: self._take(output))
        try:
            yield
        finally:
            handle.remove()

    def _take(self, output: dict[str, Any]) -> None:
        self._classes.append(output["logits"].argmax(-1).cpu().numpy())
        if output["assignments"] is not None:
            self._clusters.append(output["assignments"].argmax(-1).cpu().numpy())
        if self._model.hsmm is not None:
            scores = output["scores"]
            self._states.append(self._model.hsmm.decode(scores).numpy())
            steps = torch.arange(1.0, len(scores.duration) + 1, device=scores.duration.device)
            self._expected = (steps @ scores.duration.exp()).double().cpu().numpy()

    def figures(self, labels: NDArray[np.int64]) -> StageFigures:
        """Return the figures, with the labels of all steps [N · T] in the order in which they were seen."""
        classes = np.concatenate(self._classes)
        found = StageFigures(
            true_length=_mean_run(labels.reshape(classes.shape)),
            length=_mean_run(classes),
            clusters_used=len(_in_use(np.concatenate(self._clusters))) if self._clusters else None,
        )
        if self._expected is None:
            return found
        states = np.concatenate(self._states)
        used = _in_use(states)
        return replace(
            found,
            states_used=len(used),
            state_length=_mean_run(states),
            expected_duration=float(self._expected[used].mean()),
        )


def _mean_run(rows: NDArray[np.int64]) -> float:
    """Return the mean length of the runs that end within their sequence; the sequence's own without any."""
    found = durations(rows)
    return float(found.mean()) if len(found) else float(rows.shape[1])


def _in_use(chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the values that have more than a tenth of an even share among those that occur."""
    values, counts = np.unique(chosen, return_counts=True)
    return np.extract(counts * len(values) > ACTIVE_SHARE * counts.sum(), values)
