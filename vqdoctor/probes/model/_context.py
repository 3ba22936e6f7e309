"""What the model's probes share: one training pass for the gradients, one evaluation of all data."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.core.evidence import TrainingRecord
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.live.locate import candidates
from vqdoctor.live.task import Batch, Losses, Split, Task
from vqdoctor.live.untouched import working_copy
from vqdoctor.live.vectors import channel_axis, rows
from vqdoctor.live.watch import Call, watch
from vqdoctor.metrics.match import nearest, unit
from vqdoctor.probes._rows import is_unit, live_mask

SPLITS: tuple[Split, ...] = ("train", "stop", "val")
Change = Callable[[str, Call, int], torch.Tensor]
"""Layer name, call, channel axis in; what the model gets in place of z_q out."""


@dataclass(kw_only=True)
class Step:
    """What one training batch showed of one layer, all in one autograd graph.

    Attributes:
        z_e: the layer's input.
        z_q: the layer's own output.
        entered: what the rest of the model got: z_q, made to require a gradient where it did not.
        axis: the axis of the vectors' elements.
        losses: the losses of the batch.
        model: the copy that ran.
    """

    z_e: torch.Tensor
    z_q: torch.Tensor
    entered: torch.Tensor
    axis: int
    losses: Losses
    model: torch.nn.Module

    @property
    def vectors(self) -> int:
        """How many vectors were quantized."""
        return self.z_e.numel() // self.z_e.shape[self.axis]


@dataclass(kw_only=True)
class Seen:
    """What one layer did in eval mode on one split.

    Attributes:
        z_e: input vectors, float32 [B, positions, D].
        z_q_mean: mean output vector, float32 [D'].
        indices: chosen codes, int64 [B, positions]; None where the layer gives none.
        axis: the axis of the vectors' elements.
    """

    z_e: NDArray[np.float32]
    z_q_mean: torch.Tensor
    indices: NDArray[np.int64] | None
    axis: int


@dataclass(kw_only=True)
class Scored:
    """The task's answers on one split, in eval mode.

    Attributes:
        samples: how many samples.
        loss: mean task loss.
        logits: class scores, float32 [samples, classes], or None.
        labels: class labels [samples], or None.
    """

    samples: int
    loss: float
    logits: NDArray[np.float32] | None
    labels: NDArray[np.int64] | None


@dataclass(kw_only=True, eq=False)
class ModelContext:
    """A loaded model, its task, and the VQ layers to examine in it.

    Attributes:
        model: the model with the checkpoint in it; it is never run, only copies of it are.
        task: the task.
        views: the VQ layers of the checkpoint.
        codebook_names: layer name to the codebook's name in the model.
        record: what the file records of the training.
        arrays: the raw arrays of the batch file.
        device: where the copies run.
        seed: seed of cotangents and shuffles.
        active_share: the multiple of 1/K above which a code is active.
        histogram: whether usage carries every code's count.
        train_batches: how many training batches the gradients are measured on.
        progress: told what is being done.
    """

    model: torch.nn.Module
    task: Task
    views: Sequence[QuantizerView]
    codebook_names: Mapping[str, str]
    record: TrainingRecord | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    active_share: float = 0.1
    histogram: bool = False
    train_batches: int = 4
    progress: Callable[[str], None] = lambda _: None

    @property
    def vq_weight(self) -> float | None:
        """The weight of the VQ loss: the task's, else the file's, else unknown."""
        recorded = self.record.vq_weight if self.record else None
        return self.task.vq_weight if self.task.vq_weight is not None else recorded

    def copy(self, *, training: bool) -> torch.nn.Module:
        """Return a copy of the model on the device; the original stays as it is."""
        return working_copy(self.model, training=training).to(self.device)

    @cached_property
    def layers(self) -> dict[str, str]:
        """Layer name to the path of the module whose input is z_e and whose output is z_q.

        Of the candidates that map a float input to a float output of its shape, the innermost that
        passes a gradient; where none does, the innermost. Layers without any are left out.
        """
        names = {v.name: candidates(self.model, self.codebook_names[v.name]) for v in self.views}
        if not self._train_batches:
            return {}
        paths = {path: path for candidate_paths in names.values() for path in candidate_paths}
        steps = self._step(self.copy(training=True), paths, self._train_batches[0])
        found: dict[str, str] = {}
        for name, candidate_paths in names.items():
            mapping = [path for path in candidate_paths if path in steps]
            connected = [path for path in mapping if _connected(steps[path])]
            if mapping:
                found[name] = (connected or mapping)[0]
        return found

    def steps(self) -> Iterator[dict[str, Step]]:
        """Yield, for the first training batches, what each layer did in train mode.

        Every call starts from a fresh copy and the same random state; within one call the copy's
        EMA moves from batch to batch, as in training.
        """
        layers = self.layers
        torch.manual_seed(self.seed)
        model = self.copy(training=True)
        for batch in self._train_batches:
            yield self._step(model, layers, batch)

    @cached_property
    def _train_batches(self) -> list[Batch]:
        return [_to(b, self.device) for b in itertools.islice(self.task.batches("train"), self.train_batches)]

    def _step(self, model: torch.nn.Module, paths: Mapping[str, str], batch: Batch) -> dict[str, Step]:
        entered: dict[str, torch.Tensor] = {}

        def entering(name: str) -> Callable[[Call], torch.Tensor]:
            def enter(call: Call) -> torch.Tensor:
                assert call.z_q is not None
                alive = call.z_q if call.z_q.requires_grad else call.z_q.detach().requires_grad_()
                entered.setdefault(name, alive)
                return alive

            return enter

        with contextlib.ExitStack() as stack:
            watched = {
                name: stack.enter_context(
                    watch(model.get_submodule(path), keep_graph=True, change=entering(name))
                )
                for name, path in paths.items()
            }
            losses = self.task.losses(model, batch)
        dims = {view.name: view.dim for view in self.views}
        steps = {}
        for name, w in watched.items():
            call = next((call for call in w.calls if call.z_q is not None), None)
            if call is not None and call.z_q is not None:
                axis = _axis(call, dims.get(name, -1))
                steps[name] = Step(
                    z_e=call.z_e, z_q=call.z_q, entered=entered[name], axis=axis, losses=losses, model=model
                )
        return steps

    @cached_property
    def seen(self) -> dict[Split, dict[str, Seen]]:
        """What each layer did in eval mode, by split."""
        return {split: seen for split in SPLITS if (seen := self._observe(split)[0])}

    def codes(self, split: Split) -> dict[str, NDArray[np.int64]]:
        """Return the codes that each layer chose on a split, [samples, positions].

        They are the layer's own indices, or else the nearest codes where z_e has their dimension.
        """
        chosen = {}
        for view in self.views:
            seen = self.seen.get(split, {}).get(view.name)
            if seen is None:
                continue
            codes = seen.indices if seen.indices is not None else _nearest(seen, view)
            if codes is not None:
                chosen[view.name] = self._by_sample(codes, split)
        return chosen

    def _by_sample(self, codes: NDArray[np.int64], split: Split) -> NDArray[np.int64]:
        """Fold a batch axis that holds several rows of each sample, such as frames, into positions."""
        scored = self.scored.get(split)
        if scored and scored.labels is not None and len(codes) % scored.samples == 0:
            return codes.reshape(scored.samples, -1)
        return codes

    @cached_property
    def scored(self) -> dict[Split, Scored]:
        """The task's answers in eval mode, by split."""
        return {split: scored for split in SPLITS if (scored := self._observe(split)[1])}

    def score(self, split: Split, change: Change) -> Scored:
        """Return the task's answers on a split that has data, every layer's z_q replaced by `change`."""
        scored = self._run(split, change)[1]
        assert scored is not None
        return scored

    def _observe(self, split: Split) -> tuple[dict[str, Seen], Scored | None]:
        if split not in self._observed:
            self.progress(f"running the {split} split")
            self._observed[split] = self._run(split)
        return self._observed[split]

    @cached_property
    def _observed(self) -> dict[Split, tuple[dict[str, Seen], Scored | None]]:
        return {}

    def _run(self, split: Split, change: Change | None = None) -> tuple[dict[str, Seen], Scored | None]:
        model = self.copy(training=False)
        parts: dict[str, list[Seen]] = {name: [] for name in self.layers}
        scores: list[Scored] = []
        dims = {view.name: view.dim for view in self.views}

        def bound(name: str) -> Callable[[Call], torch.Tensor] | None:
            return None if change is None else lambda call: change(name, call, _axis(call, dims[name]))

        with torch.no_grad():
            for batch in self._batches(split):
                with contextlib.ExitStack() as stack:
                    watched = {
                        name: stack.enter_context(watch(model.get_submodule(path), change=bound(name)))
                        for name, path in self.layers.items()
                    }
                    scores.append(_scored(self.task.losses(model, _to(batch, self.device))))
                if change is None:
                    for name, w in watched.items():
                        parts[name].extend(
                            _seen(call, dims[name]) for call in w.calls if call.z_q is not None
                        )
        if not scores:
            return {}, None
        return {name: _join_seen(p) for name, p in parts.items() if p}, _join_scored(scores)

    def _batches(self, split: Split) -> Iterator[Batch]:
        batches = cast("Callable[[str], Any]", self.task.batches)
        if split != "stop":
            yield from batches(split)
            return
        # A Task need not serve "stop"; however it says so, there is then nothing to run.
        with contextlib.suppress(KeyError, ValueError, NotImplementedError):
            yield from batches(split)


def gradient(of: torch.Tensor | None, at: torch.Tensor, cotangent: torch.Tensor | None = None) -> Any:
    """Return the gradient of `of` at `at`, keeping the graph; None where no path leads there."""
    if of is None or not of.requires_grad or not at.requires_grad:
        return None
    return torch.autograd.grad(of, at, cotangent, retain_graph=True, allow_unused=True)[0]


def _connected(step: Step) -> bool:
    g = gradient(step.z_q, step.z_e, torch.ones_like(step.z_q))
    return g is not None and bool(g.any())


def _axis(call: Call, dim: int) -> int:
    indices = None if call.indices is None else tuple(call.indices.shape)
    return channel_axis(tuple(call.z_e.shape), dim, indices)


def _seen(call: Call, dim: int) -> Seen:
    assert call.z_q is not None
    axis = _axis(call, dim)
    z_e = rows(call.z_e, axis).float().cpu().numpy()
    fits = call.indices is not None and call.indices.numel() == z_e.shape[0] * z_e.shape[1]
    indices = (
        call.indices.reshape(z_e.shape[:2]).long().cpu().numpy()
        if fits and call.indices is not None
        else None
    )
    return Seen(z_e=z_e, z_q_mean=rows(call.z_q, axis).float().mean((0, 1)), indices=indices, axis=axis)


def _nearest(seen: Seen, view: QuantizerView) -> NDArray[np.int64] | None:
    if seen.z_e.shape[-1] != view.dim or not np.isfinite(view.codebook).all():
        return None
    norms, _, live = live_mask(view)
    vectors = seen.z_e.reshape(-1, view.dim)
    found = nearest(unit(vectors) if is_unit(norms, live) else vectors, view.codebook)
    return found.indices.reshape(seen.z_e.shape[:2])


def _join_seen(parts: list[Seen]) -> Seen:
    weights = torch.tensor([float(len(p.z_e)) for p in parts], device=parts[0].z_q_mean.device)
    means = torch.stack([p.z_q_mean for p in parts])
    indices = [p.indices for p in parts if p.indices is not None]
    return Seen(
        z_e=np.concatenate([p.z_e for p in parts]),
        z_q_mean=(means * weights[:, None]).sum(0) / weights.sum(),
        indices=np.concatenate(indices) if len(indices) == len(parts) else None,
        axis=parts[0].axis,
    )


def _scored(losses: Losses) -> Scored:
    logits, labels = losses.logits, losses.labels
    return Scored(
        samples=len(labels) if labels is not None else len(logits) if logits is not None else 1,
        loss=float(losses.task),
        logits=None if logits is None else logits.float().cpu().numpy(),
        labels=None if labels is None else labels.long().cpu().numpy(),
    )


def _join_scored(parts: list[Scored]) -> Scored:
    samples = sum(p.samples for p in parts)
    logits = [p.logits for p in parts if p.logits is not None]
    labels = [p.labels for p in parts if p.labels is not None]
    return Scored(
        samples=samples,
        loss=sum(p.loss * p.samples for p in parts) / samples,
        logits=np.concatenate(logits) if len(logits) == len(parts) else None,
        labels=np.concatenate(labels) if len(labels) == len(parts) else None,
    )


def _to(batch: Batch, device: torch.device) -> Batch:
    """Move a batch's tensors; what is no tensor, tuple, list or dict stays the Task's own affair."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_to(item, device) for item in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_to(item, device) for item in batch)
    if type(batch) is dict:
        return {key: _to(item, device) for key, item in batch.items()}
    return batch
