"""The context of the file's probes: a checkpoint, its layers and its saved training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps

import numpy as np

from vqdoctor.checkpoint import Checkpoint
from vqdoctor.core.evidence import Evidence
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes import probe
from vqdoctor.probes.probe import Missing, Probe
from vqdoctor.saved.training import SavedTraining


@dataclass(frozen=True, kw_only=True, eq=False)
class FileContext:
    """A checkpoint, the VQ layers found in it, and the settings of the probes.

    Attributes:
        checkpoint: the opened file.
        views: its VQ layers.
        seed: seed of everything that is drawn.
        histogram: whether the full counts go into the evidence.
        verify: whether every value is looked at, not samples.
        decays: layer name to the EMA decay that its module keeps, of the layers of a model that is at hand.
    """

    checkpoint: Checkpoint
    views: tuple[QuantizerView, ...]
    seed: int = 0
    histogram: bool = False
    verify: bool = False
    decays: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def saved(self) -> SavedTraining:
        """The training as the file remembers it."""
        return SavedTraining(checkpoint=self.checkpoint, kept=self.decays)

    @cached_property
    def finite(self) -> frozenset[str]:
        """Names of the layers whose codebook holds neither NaN nor infinity."""
        return frozenset(view.name for view in self.views if np.isfinite(view.codebook).all())

    def stored_dtype(self, view: QuantizerView) -> str:
        """Return the type of a codebook's numbers in the file."""
        stored = self.checkpoint.tensors.get(view.keys.get("codebook", ""))
        return stored.dtype if stored is not None else str(view.codebook.dtype)


def each_layer(
    kind: type[Evidence], measure: Callable[[FileContext, QuantizerView], Evidence]
) -> Probe[FileContext]:
    """Return the probe that measures every layer of a file whose codebook is finite."""

    @wraps(measure)
    def measure_finite(context: FileContext, view: QuantizerView) -> Evidence:
        if view.name not in context.finite:
            raise Missing("codebook has non-finite values")
        return measure(context, view)

    return probe.each_layer(kind, "checkpoint", measure_finite)
