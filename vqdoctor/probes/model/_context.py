"""The context of the model's probes: a model run on copies, and the knowledge beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.capture.discover import Discovered
from vqdoctor.capture.masks import MASKED
from vqdoctor.capture.observe import SPLITS
from vqdoctor.capture.reader import Codes, Vectors
from vqdoctor.capture.run import Capture
from vqdoctor.core.evidence import TrainingRecord
from vqdoctor.core.launcher import Launched
from vqdoctor.models.compiler import without_compiler
from vqdoctor.models.task import LEARNING_RATE, Losses, Split

SAME = 1e-4
"""Relative difference up to which two splits' moments are the same: far above float32's rounding, far
below the 1/sqrt(N) by which samples differ."""


@dataclass(kw_only=True, eq=False)
class ModelContext(Capture):
    """A loaded model, its task and the VQ layers to examine in it, and what the probes know beside them.

    Attributes:
        record: what the file records of the training.
        arrays: the raw arrays of the batch file.
        histogram: whether usage carries every code's count.
        probe_steps: optimizer steps to take on a copy for a look at the dynamics; 0 for none.
        experiment_steps: optimizer steps of each experiment; 0 for no experiments.
        experiments: names of the experiments to run; None is all.
        launched: the processes that torch's launcher started, all of which examine this model.
        last_rate: learning rate with which the training of the file ended; None where unknown.
    """

    record: TrainingRecord | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    histogram: bool = False
    probe_steps: int = 0
    experiment_steps: int = 0
    experiments: Collection[str] | None = None
    launched: Launched = field(default_factory=Launched)
    last_rate: float | None = None

    @property
    def vq_weight(self) -> float | None:
        """The weight of the VQ loss: the task's, else the file's, else unknown."""
        recorded = self.record.vq_weight if self.record else None
        return self.task.vq_weight if self.task.vq_weight is not None else recorded

    def own_optimizer(
        self, model: torch.nn.Module | None = None
    ) -> tuple[torch.nn.Module, torch.optim.Optimizer] | None:
        """Return a copy of the model, the given or a new one, and the task's own optimizer of it, if any.

        Of several the first is the model's.
        """
        own = self.own_optimizers(model)
        return None if own is None else (own[0], own[1][0])

    def own_optimizers(
        self, model: torch.nn.Module | None = None
    ) -> tuple[torch.nn.Module, Sequence[torch.optim.Optimizer]] | None:
        """Return a copy of the model, the given or a new one, and all optimizers of the task, if any."""
        build = getattr(self.task, "optimizer", None)
        if not callable(build):
            return None
        model = self.copy(training=True) if model is None else model
        with without_compiler():
            built = build(model)
        return model, built if isinstance(built, list | tuple) else [built]

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Return the task's own optimizer of a copy; else Adam, with the file's learning rate if known."""
        own = self.own_optimizer(model)
        if own is not None:
            return own[1]
        recorded = self.record.learning_rate if self.record else None
        parameters = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.Adam(parameters, lr=LEARNING_RATE if recorded is None else recorded)

    def learning_copy(self) -> torch.nn.Module:
        """Return a copy in training mode of which autograd also says what its frozen parameters lead to."""
        model = self.copy(training=True)
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        return model

    @cached_property
    def looked(self) -> dict[object, Any]:
        """The results of the looks at the training batches; see `_looks`."""
        return {}

    def all_z_e(self, name: str) -> Vectors | None:
        """Return a layer's z_e on all splits without masked positions, [N, D]; None where it is not seen."""
        parts = [layers[name].vectors for layers in self.seen.values() if name in layers]
        return np.concatenate(parts) if parts else None

    def all_codes(self, name: str) -> Codes:
        """Return a layer's codes on all splits, [N], without those of masked positions."""
        by_split = [self.codes(split) for split in SPLITS]
        parts = [codes[name].ravel() for codes in by_split if name in codes]
        codes: Codes = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
        return np.extract(codes != MASKED, codes)

    @cached_property
    def own_splits(self) -> tuple[Split, ...]:
        """The splits with data of their own, since data counted twice would feign certainty.

        Many a Task serves the same data for every split, perhaps shuffled: then z_e has the same mean and
        spread in every dimension, up to rounding.
        """
        found: list[Split] = []
        for split in self.seen:
            if not any(self.is_same_data(split, other) for other in found):
                found.append(split)
        bare: dict[bytes, Split] = {}  # of layers of which the codes alone are seen
        for split in SPLITS if not found else ():
            if codes := self.codes(split):
                bare.setdefault(np.sort(next(iter(codes.values())), axis=None).tobytes(), split)
        return tuple(found) or tuple(bare.values())

    def is_same_data(self, split: Split, other: Split) -> bool:
        """Whether two splits that were seen hold the same data, by the moments of z_e."""
        (n, mean, spread), (m, other_mean, other_spread) = self._moments(split), self._moments(other)
        return (
            n == m
            and np.allclose(mean, other_mean, atol=SAME * other_spread.max())
            and np.allclose(spread, other_spread, rtol=SAME)
        )

    def _moments(self, split: Split) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
        """Return the number, the mean [D] and the spread [D] of z_e of the first layer on a split."""
        z_e = next(iter(self.seen[split].values())).z_e
        vectors = z_e.reshape(-1, z_e.shape[-1])
        return len(vectors), vectors.mean(0, dtype=np.float64), vectors.std(0, dtype=np.float64)

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
    found = torch.autograd.grad(of, at, cotangent, retain_graph=True, allow_unused=True)
    first: torch.Tensor | None = found[0]
    return first


def square_sum(tensor: torch.Tensor) -> float:
    """Return the sum of a tensor's squares; rows are summed in float32, 40 times as fast as in float64."""
    rows = tensor.reshape(-1, tensor.shape[-1] if tensor.ndim else 1).float()
    return float(torch.linalg.vector_norm(rows, dim=1).double().square().sum())


Parameters = Mapping[str, torch.nn.Parameter]


def outside(model: torch.nn.Module, paths: Iterable[str]) -> Parameters:
    """Return the parameters that lie in none of the modules at these paths, by name."""
    inside = tuple(f"{path}." for path in paths)
    return {name: p for name, p in model.named_parameters() if not name.startswith(inside)}


def share_held(
    model: torch.nn.Module, optimizers: Iterable[torch.optim.Optimizer], names: Collection[str]
) -> float | None:
    """Return the share of the numbers of parameters that optimizers hold and may move; None without any."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    moved = {id(p) for group in groups for p in group["params"] if p.requires_grad}
    own = [p for name, p in model.named_parameters() if name in names]
    total = sum(p.numel() for p in own)
    return sum(p.numel() for p in own if id(p) in moved) / total if total else None


def total_gradient(
    losses: Losses,
    at: torch.Tensor,
    vq_weight: float,
    of: Callable[[torch.Tensor | None, torch.Tensor], torch.Tensor | None] = gradient,
) -> torch.Tensor | None:
    """Return the gradient of the task loss and the weighted VQ loss; None where no path leads there."""
    task = of(losses.task, at)
    vq = of(losses.vq, at) if vq_weight else None
    if vq is None:
        return task
    return vq_weight * vq if task is None else task + vq_weight * vq
