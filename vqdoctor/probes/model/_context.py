"""What the model's probes share: one training pass for the gradients, one evaluation of all data."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.capture.discover import Discovered, Radix, discover, quantizing
from vqdoctor.capture.locate import candidates
from vqdoctor.capture.located import Located, judge, lookups, stop_dropping_levels
from vqdoctor.capture.seen import Codes, Reader, Seen, fetched, join, read
from vqdoctor.capture.watch import Call, Watch, watch
from vqdoctor.core.evidence import TrainingRecord
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.models.device import moved
from vqdoctor.models.task import Batch, Losses, Split, Task
from vqdoctor.models.tensors import tensors_of
from vqdoctor.models.untouched import seed_all, unwrapped, unwrapped_name, working_copy

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
        indices: the codes that the layer chose; None where it gives none.
        axis: the axis of the vectors' elements.
        losses: the losses of the batch.
        model: the copy that ran.
        own_losses: the scalars with a gradient that the layer itself returned, such as its VQ loss.
        recorded: whether autograd was recording in the layer: not so under `no_grad`.
    """

    z_e: torch.Tensor
    z_q: torch.Tensor
    entered: torch.Tensor
    indices: torch.Tensor | None = None
    axis: int
    losses: Losses
    model: torch.nn.Module
    own_losses: tuple[torch.Tensor, ...] = ()
    recorded: bool = True

    @property
    def vectors(self) -> int:
        """How many vectors were quantized."""
        return self.z_e.numel() // self.z_e.shape[self.axis]


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


@dataclass(frozen=True, kw_only=True)
class _Observed:
    """What a split showed in eval mode; `bare` are the codes of layers of which nothing else is seen."""

    seen: dict[str, Seen]
    bare: dict[str, Codes]
    scored: Scored | None


@dataclass(kw_only=True, eq=False)
class ModelContext:
    """A loaded model, its task, and the VQ layers to examine in it.

    Attributes:
        model: the model with the checkpoint in it; it is never run, only copies of it are.
        task: the task.
        views: the VQ layers of the checkpoint.
        codebook_names: layer name to the codebook's name in the model; none for a layer without one.
        record: what the file records of the training.
        arrays: the raw arrays of the batch file.
        device: where the copies run.
        seed: seed of cotangents and shuffles.
        histogram: whether usage carries every code's count.
        train_batches: how many training batches the gradients are measured on.
        probe_steps: optimizer steps to take on a copy for a look at the dynamics; 0 is none.
        progress: told what is being done.
        places: layer name to the path of its module, for layers without a codebook.
        radixes: layer name to how its codes are made of levels, for those that say so.
    """

    model: torch.nn.Module
    task: Task
    views: Sequence[QuantizerView]
    codebook_names: Mapping[str, str]
    record: TrainingRecord | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    histogram: bool = False
    train_batches: int = 4
    probe_steps: int = 0
    progress: Callable[[str], None] = lambda _: None
    places: Mapping[str, str] = field(default_factory=dict)
    radixes: Mapping[str, Radix] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take wrappers (torch.compile, DDP) off: the copies have none, and their names neither."""
        names = {layer: unwrapped_name(self.model, name) for layer, name in self.codebook_names.items()}
        self.codebook_names, self.model = names, unwrapped(self.model)

    @property
    def vq_weight(self) -> float | None:
        """The weight of the VQ loss: the task's, else the file's, else unknown."""
        recorded = self.record.vq_weight if self.record else None
        return self.task.vq_weight if self.task.vq_weight is not None else recorded

    def copy(self, *, training: bool) -> torch.nn.Module:
        """Return a copy of the model on the device; the original stays as it is."""
        twin = working_copy(self.model, training=training, rebuild=lambda: self.task.model())
        return twin.to(self.device)

    @property
    def layers(self) -> dict[str, str]:
        """Layer name to the path of the module whose input is z_e and whose output is z_q.

        Layers without such a module are left out.
        """
        return {name: place.path for name, place in self.located.items() if place.maps}

    def discover(self) -> Discovered:
        """Return the VQ layers that show by their output only: see `live.discover`."""
        if not self._train_batches:
            return Discovered()
        batch, known = self._train_batches[0], [place.path for place in self.located.values()]
        lost = [self.codebook_names[v.name] for v in self.views if v.name not in self.located]
        known += [owner for key in lost if (owner := key.rpartition(".")[0])]
        seed_all(self.seed)
        found = discover(self.copy(training=False), lambda model: self.task.losses(model, batch), known)
        taken = set(self.codebook_names.values())
        fresh = [view for view in found.explicit if view.keys["codebook"] not in taken]
        return replace(found, explicit=tuple(fresh))

    def also(self, found: Discovered) -> ModelContext:
        """Return the context of these layers and of the discovered ones that have a codebook."""
        return replace(
            self,
            views=(*self.views, *found.explicit),
            codebook_names={**self.codebook_names, **found.codebook_names},
        )

    def others(self, found: Discovered) -> ModelContext:
        """Return the context of the discovered layers that have no codebook."""
        return replace(
            self, views=found.implicit, codebook_names={}, places=found.places, radixes=found.radixes
        )

    def gap(self, name: str) -> str:
        """Return why no gradient can be judged at a layer; "" where it can, or where nothing was located."""
        return self.located[name].gap if name in self.located else ""

    @cached_property
    def located(self) -> dict[str, Located]:
        """Where each layer is; a layer that was not found is left out.

        Looked at are the modules around each codebook (see `live.locate`), in train mode. Levels that
        a quantizer leaves out at random get a run in which none is left out. What is still not found is
        looked for among all modules, by what they put out.
        """
        paths = {view.name: self._candidates(view) for view in self.views}
        found: dict[str, Located] = {}
        for number, batch in enumerate((*self._train_batches, *self._train_batches[:1])):
            missing = {name: found_at for name, found_at in paths.items() if name not in found}
            if not missing:
                break
            model = self.copy(training=True)
            if number == len(self._train_batches):
                stop_dropping_levels(model, [p for found_at in paths.values() for p in found_at])
            unique = dict.fromkeys(path for found_at in missing.values() for path in found_at)
            watched, _ = self._watched(model, unique, batch, keep_graph=True)
            for name, found_at in missing.items():
                place = judge(model, found_at, watched, self.readers[name].dims)
                if place is not None and (place.maps or number >= len(self._train_batches) - 1):
                    found[name] = place
        for view in self.views:
            if view.name not in found or not found[view.name].maps:
                path = self._by_output(view)
                found.update({view.name: Located(path=path)} if path is not None else {})
        return found

    def _candidates(self, view: QuantizerView) -> tuple[str, ...]:
        if view.name in self.places:
            return (self.places[view.name],)
        return candidates(self.model, self.codebook_names[view.name])

    def _by_output(self, view: QuantizerView) -> str | None:
        """Return the innermost module whose output consists of the view's codes; None if there is none."""
        if not self._train_batches or not self.readers[view.name].has_codebook:
            return None
        codebook = torch.from_numpy(view.codebook)
        for path, table in self._quantizing.items():
            if table.shape[1] == view.dim:
                distance = torch.cdist(table, codebook).amin(dim=1)
                if bool((distance <= 1e-3 * codebook.std().clamp_min(1e-12) * view.dim**0.5).all()):
                    return path
        return None

    @cached_property
    def _quantizing(self) -> dict[str, torch.Tensor]:
        model = self.copy(training=False)
        batch = self._train_batches[0]
        return {q.path: q.outputs for q in quantizing(model, lambda m: self.task.losses(m, batch))}

    @cached_property
    def readers(self) -> dict[str, Reader]:
        """What reads each layer's calls, by layer name."""
        keys = [view.keys.get("codebook") for view in self.views]
        heads = [keys.count(key) if key is not None and "[head " in view.name else 1
                 for key, view in zip(keys, self.views, strict=True)]  # fmt: skip
        return {v.name: Reader(view=v, heads=h) for v, h in zip(self.views, heads, strict=True)}

    def _watched(
        self,
        model: torch.nn.Module,
        paths: Iterable[str],
        batch: Batch,
        *,
        keep_graph: bool = False,
        changes: Mapping[str, Callable[[Call], torch.Tensor]] | None = None,
    ) -> tuple[dict[str, Watch], Losses]:
        """Run a batch and return the calls of the modules at `paths`, and the losses."""
        changes = changes or {}
        with contextlib.ExitStack() as stack:
            watched = {
                path: stack.enter_context(
                    watch(model.get_submodule(path), keep_graph=keep_graph, change=changes.get(path))
                )
                for path in paths
            }
            losses = self.task.losses(model, batch)
        return watched, losses

    def steps(self, count: int | None = None) -> Iterator[dict[str, Step]]:
        """Yield, for the first training batches, what each layer did in train mode.

        Every call starts from a fresh copy and the same random state; within one call the copy's
        EMA moves from batch to batch, as in training. With a count, that many batches of the whole
        train split are taken, from the start again where it ends.
        """
        layers = {name: path for name, path in self.layers.items() if not self.gap(name)}
        model = self.copy(training=True)
        batches = self._train_batches if count is None else itertools.islice(self._endless(), count)
        shown: set[str] = set()
        for number, batch in enumerate(batches):
            seed_all(self.seed + number)  # however much chance a probe used between the batches
            steps = self._step(model, layers, batch)
            shown |= steps.keys()
            yield steps
        if count is None and shown < layers.keys() and self._train_batches:
            model = self.copy(training=True)
            stop_dropping_levels(model, list(layers.values()))
            seed_all(self.seed)
            steps = self._step(model, layers, self._train_batches[0])
            if late := {name: step for name, step in steps.items() if name not in shown}:
                yield late

    def _endless(self) -> Iterator[Batch]:
        going = True
        while going:
            going = False  # a task may serve its batches once only
            for batch in self.task.batches("train"):
                going = True
                yield moved(batch, self.device)

    @cached_property
    def _train_batches(self) -> list[Batch]:
        return [
            moved(b, self.device) for b in itertools.islice(self.task.batches("train"), self.train_batches)
        ]

    def _step(self, model: torch.nn.Module, layers: Mapping[str, str], batch: Batch) -> dict[str, Step]:
        entered: dict[str, torch.Tensor] = {}

        def entering(path: str) -> Callable[[Call], torch.Tensor]:
            def enter(call: Call) -> torch.Tensor:
                assert call.z_q is not None
                alive = call.z_q if call.z_q.requires_grad else call.z_q.detach().requires_grad_()
                entered.setdefault(path, alive)
                return alive

            return enter

        changes = {path: entering(path) for path in layers.values()}
        watched, losses = self._watched(model, changes, batch, keep_graph=True, changes=changes)
        steps = {}
        for name, path in layers.items():
            call = next((call for call in watched[path].calls if call.z_q is not None), None)
            if call is not None and call.z_q is not None:
                steps[name] = Step(
                    z_e=call.z_e,
                    z_q=call.z_q,
                    entered=entered[path],
                    indices=call.indices,
                    axis=self.readers[name].axis(call),
                    losses=losses,
                    model=model,
                    own_losses=call.losses,
                    recorded=call.recorded,
                )
        return steps

    @cached_property
    def seen(self) -> dict[Split, dict[str, Seen]]:
        """What each layer did in eval mode, by split."""
        return {split: seen for split in SPLITS if (seen := self._observe(split).seen)}

    def codes(self, split: Split) -> dict[str, Codes]:
        """Return the codes that each layer chose on a split, [rows, positions]; -1 where masked.

        They are the layer's own, or else the nearest codes where z_e has their dimension. Rows are
        samples, unless samples have different lengths: `rows_of` tells.
        """
        chosen = dict(self._observe(split).bare)
        for name, seen in self.seen.get(split, {}).items():
            codes = seen.indices if seen.indices is not None else self.readers[name].nearest(seen.z_e)
            if codes is not None:
                chosen[name] = codes
        return chosen

    def rows_of(self, split: Split) -> dict[str, Codes]:
        """Return, for each layer that `codes` has on a split, the sample that each row belongs to."""
        seen = self.seen.get(split, {})
        return {
            name: seen[name].samples if name in seen else np.arange(len(codes))
            for name, codes in self.codes(split).items()
        }

    @cached_property
    def scored(self) -> dict[Split, Scored]:
        """The task's answers in eval mode, by split."""
        return {split: scored for split in SPLITS if (scored := self._observe(split).scored)}

    def score(self, split: Split, change: Change) -> Scored:
        """Return the task's answers on a split that has data, every layer's z_q replaced by `change`."""
        scored = self._run(split, change).scored
        assert scored is not None
        return scored

    def _observe(self, split: Split) -> _Observed:
        if split not in self._observed:
            self.progress(f"running the {split} split")
            self._observed[split] = self._run(split)
        return self._observed[split]

    @cached_property
    def _observed(self) -> dict[Split, _Observed]:
        return {}

    def _run(self, split: Split, change: Change | None = None) -> _Observed:
        """Run a split in eval mode."""
        model = self.copy(training=False)
        parts: dict[str, list[Seen]] = {}
        bare: dict[str, list[Codes]] = {}
        scores: list[Scored] = []
        changes = {} if change is None else self._bound(change)
        paths = dict.fromkeys((*self.layers.values(), *self._also_watched))
        seed_all(self.seed)  # a Gumbel layer may draw in eval mode too
        with torch.no_grad():
            for batch in self._batches(split):
                watched, losses = self._watched(model, paths, moved(batch, self.device), changes=changes)
                scores.append(_scored(losses, batch))
                if change is None:
                    samples = scores[-1].samples if scores[-1].labels is not None else None
                    self._read(watched, samples, parts, bare)
        return _Observed(
            seen={name: join(found) for name, found in parts.items()},
            bare={name: np.concatenate(found) for name, found in bare.items()},
            scored=_join_scored(scores) if scores else None,
        )

    def _read(
        self,
        watched: Mapping[str, Watch],
        samples: int | None,
        parts: dict[str, list[Seen]],
        bare: dict[str, list[Codes]],
    ) -> None:
        """Add what one batch showed of each layer."""
        for name, place in self.located.items():
            reader = self.readers[name]
            if place.maps:
                calls = [c for p in self._sharing(name) for c in watched[p].calls if c.z_q is not None]
                asked = lookups(watched[place.lookup], reader.dims) if place.lookup else []
                seen = read(reader, calls, asked, samples)
                if seen is not None:
                    parts.setdefault(name, []).append(seen)
            elif (codes := fetched(reader, watched[place.path])) is not None:
                bare.setdefault(name, []).append(codes)

    def _bound(self, change: Change) -> dict[str, Callable[[Call], torch.Tensor]]:
        """Return what changes z_q at each path; where several layers share a path, as the first of them."""
        first = {path: name for name, path in reversed(self.layers.items())}

        def bound(name: str) -> Callable[[Call], torch.Tensor]:
            return lambda call: change(name, call, self.readers[name].axis(call))

        return {path: bound(name) for path, name in first.items()}

    def _sharing(self, name: str) -> list[str]:
        """Return the path of a layer, and those of the layers that share its codebook."""
        view = next(view for view in self.views if view.name == name)
        path = self.layers[name]
        paths = [path]
        for other in view.shared_with if path.startswith(name) else ():
            with contextlib.suppress(AttributeError):  # a name that is no path shows nothing
                self.model.get_submodule(there := other + path[len(name) :])
                paths.append(there)
        return paths

    @cached_property
    def _also_watched(self) -> tuple[str, ...]:
        shared = [path for name in self.layers for path in self._sharing(name)]
        lookup = [place.lookup for place in self.located.values() if place.lookup is not None]
        return (*shared, *lookup, *(place.path for place in self.located.values() if not place.maps))

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


def _scored(losses: Losses, batch: Batch) -> Scored:
    logits, labels = losses.logits, losses.labels
    first = next((t for t in (labels, logits, *tensors_of(batch)) if t is not None and t.ndim), None)
    return Scored(
        samples=1 if first is None else len(first),
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
