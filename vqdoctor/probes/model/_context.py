"""What the model's probes are given: a model run on copies, and what is known beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from numpy.typing import NDArray

from vqdoctor.capture.discover import Discovered
from vqdoctor.capture.run import Capture
from vqdoctor.core.evidence import TrainingRecord


@dataclass(kw_only=True, eq=False)
class ModelContext(Capture):
    """A loaded model, its task and the VQ layers to examine in it, and what the probes know beside them.

    Attributes:
        record: what the file records of the training.
        arrays: the raw arrays of the batch file.
        histogram: whether usage carries every code's count.
        probe_steps: optimizer steps to take on a copy for a look at the dynamics; 0 is none.
    """

    record: TrainingRecord | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    histogram: bool = False
    probe_steps: int = 0

    @property
    def vq_weight(self) -> float | None:
        """The weight of the VQ loss: the task's, else the file's, else unknown."""
        recorded = self.record.vq_weight if self.record else None
        return self.task.vq_weight if self.task.vq_weight is not None else recorded

    def also(self, found: Discovered) -> ModelContext:
        """Return the context of these layers and of the discovered ones that have a codebook."""
        return replace(self, views=(*self.views, *found.explicit))

    def others(self, found: Discovered) -> ModelContext:
        """Return the context of the discovered layers that have no codebook."""
        return replace(self, views=found.implicit, discovered=found)


def gradient(
    of: torch.Tensor | None, at: torch.Tensor, cotangent: torch.Tensor | None = None
) -> torch.Tensor | None:
    """Return the gradient of `of` at `at`, keeping the graph; None where no path leads there."""
    if of is None or not of.requires_grad or not at.requires_grad:
        return None
    found: torch.Tensor | None = torch.autograd.grad(of, at, cotangent, retain_graph=True, allow_unused=True)[
        0
    ]
    return found
