"""A model and its task, run on copies: where its VQ layers are, and what they do in training and in eval."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from vqdoctor.capture.call import Call
from vqdoctor.capture.discover import Discovered, discover, quantizing
from vqdoctor.capture.layer import CapturedLayer, Change, watching
from vqdoctor.capture.locate import locate, stop_dropping_levels
from vqdoctor.capture.looked_up import looked_up
from vqdoctor.capture.observe import SPLITS, Observed, Scored, observe
from vqdoctor.capture.pulls import Pulls
from vqdoctor.capture.reader import Codes, Reader
from vqdoctor.capture.rounded import rounded
from vqdoctor.capture.seen import Seen
from vqdoctor.capture.step import Step, Steps
from vqdoctor.capture.watch import in_order, watch_each
from vqdoctor.core.errors import UserError
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.models.device import moved
from vqdoctor.models.roundings import attach_rounding
from vqdoctor.models.task import Batch, Losses, Split, Task
from vqdoctor.models.untouched import seed_all, unwrapped, unwrapped_name, working_copy

SHIFT, LEAST_SHIFT = 0.1, 1e-3
"""Change of a tensor, as a share of its mean size, and at least: far above the rounding of what follows."""


def _same(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Whether two results of the same run are equal up to the rounding of a GPU that adds in any order."""
    return one.shape == two.shape and torch.allclose(one, two, rtol=1e-5, atol=1e-7, equal_nan=True)


@dataclass(kw_only=True, eq=False)
class Capture:
    """A model with a checkpoint in it, its task, and the VQ layers to look at.

    Attributes:
        model: the model; it is never run, only copies of it are.
        task: the task.
        views: the VQ layers.
        names: key of a tensor in the checkpoint to its name in the model, where these differ.
        device: where the copies run.
        seed: seed of all that is drawn.
        train_batches: how many training batches the gradients are measured on.
        progress: told what is being done.
        discovered: of the layers without a codebook, where they are, as they were discovered.
    """

    model: torch.nn.Module
    task: Task
    views: Sequence[QuantizerView]
    names: Mapping[str, str] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    train_batches: int = 4
    progress: Callable[[str], None] = lambda _: None
    discovered: Discovered = field(default_factory=Discovered)

    def __post_init__(self) -> None:
        """Take wrappers (torch.compile, DDP) off: the copies have none, and their names neither."""
        keys = {*self.names, *(key for view in self.views for key in view.keys.values())}
        self.names = {key: unwrapped_name(self.model, self.names.get(key, key)) for key in keys}
        self.model = unwrapped(self.model)

    def copy(self, *, training: bool) -> torch.nn.Module:
        """Return a copy of the model on the device; the original stays as it is."""
        twin = working_copy(self.model, training=training, rebuild=lambda: self.task.model())
        if self.discovered.rounding:
            attach_rounding(twin, **self.discovered.rounding)
        return twin.to(self.device)

    @cached_property
    def first_batches(self) -> list[Batch]:
        """The training batches that the gradients are measured on."""
        batches = itertools.islice(self.task.batches("train"), self.train_batches)
        return [moved(batch, self.device) for batch in batches]

    @cached_property
    def layers(self) -> dict[str, CapturedLayer]:
        """The layers by name, each with where it is."""
        keys = [view.keys.get("codebook", view.name.partition("[head ")[0]) for view in self.views]
        unlocated = {}
        for key, view in zip(keys, self.views, strict=True):
            heads = keys.count(key) if "[head " in view.name else 1
            tensors = {role: self.names[key] for role, key in view.keys.items()}
            reader = Reader(view=view, heads=heads)
            unlocated[view.name] = CapturedLayer(view=view, model=self.model, tensors=tensors, reader=reader)
        return locate(self, unlocated)

    @cached_property
    def tables(self) -> dict[str, torch.Tensor]:
        """Path to the different vectors [any, D] that a module put out, of the modules that quantize."""
        model, batch = self.copy(training=False), self.first_batches[0]
        return {q.path: q.outputs for q in quantizing(model, lambda m: self.task.losses(m, batch))}

    @property
    def mapped(self) -> dict[str, CapturedLayer]:
        """The layers whose z_e and z_q are seen."""
        return {name: layer for name, layer in self.layers.items() if layer.maps}

    def on(self, model: torch.nn.Module) -> tuple[CapturedLayer, ...]:
        """Return the layers whose z_e and z_q are seen, on a copy of the model.

        Raises:
            UserError: if there are none.
        """
        found = tuple(layer.on(model) for layer in self.mapped.values())
        if not found:
            hint = "retraining needs a module from z_e to z_q"
            raise UserError("no VQ layer can be watched in the model", hint)
        return found

    def discover(self) -> Discovered:
        """Return the VQ layers that show by their output only: see `capture.discover`.

        Where no layer is known, and the whole model alone shows, they are the tables whose codes the model
        looks up itself.
        """
        if not self.first_batches:
            return Discovered()
        known = []
        for layer in self.layers.values():
            owner = layer.tensors.get("codebook", "").rpartition(".")[0]
            known += [layer.path] if layer.path is not None else [owner] if owner else []
        seed_all(self.seed)
        batch = self.first_batches[0]

        def run(model: torch.nn.Module) -> Losses:
            return self.task.losses(model, batch)

        found = discover(self.copy(training=False), run, known)
        # a whole model that collapsed puts out few vectors too: its own lookups tell more
        if not known and not any(found.places.values()):
            inside = looked_up(self.copy(training=False), run)
            if inside:
                return Discovered(explicit=inside)
            if not found.views:
                return rounded(lambda training: self.copy(training=training), run)
        # tied tables have several names, and are one codebook
        stored = (layer.stored() for layer in self.layers.values())
        taken = {tensor.data_ptr() for tensor in stored if tensor is not None}
        saved = self.model.state_dict()
        fresh = [view for view in found.explicit if saved[view.keys["codebook"]].data_ptr() not in taken]
        return replace(found, explicit=tuple(fresh))

    def steps(self, count: int | None = None) -> Iterator[Steps]:
        """Yield, for the first training batches, what each layer did in train mode.

        Every call starts from a fresh copy and the same random state; within one call the copy's
        EMA moves from batch to batch, as in training. With a count, that many batches of the whole
        train split are taken, from the start again where it ends.
        """
        judged = [layer for layer in self.mapped.values() if not layer.gap]
        model = self.copy(training=True)
        layers = [layer.on(model) for layer in judged]
        batches = self.first_batches if count is None else itertools.islice(self._endless(), count)
        shown: set[str] = set()
        for number, batch in enumerate(batches):
            seed_all(self.seed + number)  # however much chance a probe used between the batches
            steps = self._step(model, layers, batch)
            shown |= steps.keys()
            yield steps
        if count is None and len(shown) < len(layers) and self.first_batches:
            model = self.copy(training=True)
            layers = [layer.on(model) for layer in judged]
            stop_dropping_levels(model, [layer.path for layer in judged if layer.path is not None])
            seed_all(self.seed)
            steps = self._step(model, layers, self.first_batches[0])
            if late := {name: step for name, step in steps.items() if name not in shown}:
                yield Steps(late, steps.pulls, steps.order)

    def _endless(self) -> Iterator[Batch]:
        going = True
        while going:
            going = False  # a task may serve its batches once only
            for batch in self.task.batches("train"):
                going = True
                yield moved(batch, self.device)

    def _step(self, model: torch.nn.Module, layers: list[CapturedLayer], batch: Batch) -> Steps:
        entered: dict[torch.nn.Module, torch.Tensor] = {}

        def enter(layer: CapturedLayer, call: Call) -> torch.Tensor:
            assert call.z_q is not None
            alive = call.z_q if call.z_q.requires_grad else call.z_q.detach().requires_grad_()
            entered.setdefault(layer.module, alive)
            return alive

        called: dict[torch.nn.Module, None] = {}
        with watching(layers, enter, keep_graph=True) as watched, in_order(called):
            losses = self.task.losses(model, batch)
        first = {layer: next(iter(layer.calls(watched)), None) for layer in layers}
        at = [tensor for layer in layers if (tensor := layer.stored()) is not None]
        at += [call.z_e for call in first.values() if call is not None]
        pulls = Pulls(model=model, losses=losses, at=(*at, *entered.values()))
        steps = {
            layer.name: Step(
                layer=layer,
                call=call,
                z_q=call.z_q,
                entered=entered[layer.module],
                losses=losses,
                pulls=pulls,
            )
            for layer, call in first.items()
            if call is not None and call.z_q is not None
        }
        paths = {module: path for path, module in model.named_modules()}
        return Steps(steps, pulls, [paths[module] for module in called if module in paths])

    def first_calls(
        self,
        *,
        training: bool,
        paths: Mapping[str, str] | None = None,
        change: Callable[[torch.nn.Module], None] | None = None,
        model: torch.nn.Module | None = None,
    ) -> tuple[dict[str, Call], Losses | None]:
        """Run a copy on the first training batch and return each layer's first call, and the losses.

        In training all is in one graph, and a layer's input requires a gradient even if its encoder is
        frozen. Otherwise there is no graph, and the batch serves as data only.

        Args:
            training: whether in training.
            paths: name to path of further modules whose first call is returned.
            change: changes the copy, without a graph, before it runs.
            model: the copy to run in place of a new one.
        """
        if not self.first_batches:
            return {}, None
        model = self.copy(training=training) if model is None else model
        if change is not None:
            with torch.no_grad():
                change(model)
        own = {name: layer.on(model).module for name, layer in self.mapped.items()}
        modules = {**own, **{name: model.get_submodule(path) for name, path in (paths or {}).items()}}
        seed_all(self.seed)
        with (
            watch_each(modules.values(), keep_graph=training) as watched,
            contextlib.nullcontext() if training else torch.no_grad(),
        ):
            losses = self.task.losses(model, self.first_batches[0])
        first = {name: next(iter(watched[module].forwards), None) for name, module in modules.items()}
        return {n: call for n, call in first.items() if call is not None and call.output is not None}, losses

    def moved_by(self, tensors: Collection[str]) -> tuple[set[str], bool]:
        """Change tensors of the model and see what depends on them, whatever autograd recorded.

        Returns:
            the layers whose z_e changes, and whether the task loss does.
        """
        first, losses = self.first_calls(training=False)

        def shift(model: torch.nn.Module) -> None:
            generator = torch.Generator().manual_seed(self.seed)
            for name, tensor in model.state_dict().items():
                if name in tensors and tensor.is_floating_point():
                    noise = torch.randn(tensor.shape, generator=generator).to(tensor)
                    tensor.add_(noise.abs() * (SHIFT * tensor.abs().mean() + LEAST_SHIFT))

        shifted, others = self.first_calls(training=False, change=shift)
        both = first.keys() & shifted.keys()
        moved = {name for name in both if not _same(first[name].z_e, shifted[name].z_e)}
        return moved, losses is not None and others is not None and not _same(losses.task, others.task)

    @cached_property
    def _codes(self) -> dict[Split, dict[str, Codes]]:
        return {}

    @cached_property
    def _observed(self) -> dict[Split, Observed]:
        return {}

    def observed(self, split: Split) -> Observed:
        """Return the observations of a split in eval mode; it is run once."""
        if split not in self._observed:
            self._observed[split] = observe(self, split)
        return self._observed[split]

    def seen_of(self, name: str) -> list[Seen]:
        """Return a layer at work on each split where it is seen."""
        return [layers[name] for layers in self.seen.values() if name in layers]

    @cached_property
    def seen(self) -> dict[Split, dict[str, Seen]]:
        """Each layer at work in eval mode, by split."""
        return {split: seen for split in SPLITS if (seen := self.observed(split).seen)}

    def codes(self, split: Split) -> dict[str, Codes]:
        """Return the codes that each layer chose on a split, [rows, positions]; -1 where masked.

        They are the layer's own, or else the nearest codes where z_e has their dimension. Rows are
        samples, unless samples have different lengths; see `rows_of`.
        """
        if split not in self._codes:
            chosen = self._codes[split] = dict(self.observed(split).bare)
            for name, seen in self.seen.get(split, {}).items():
                reader = self.layers[name].reader
                codes = seen.indices if seen.indices is not None else reader.nearest(seen.z_e)
                if codes is not None:
                    chosen[name] = seen.without_masked(codes)
        return self._codes[split]

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
        return {split: scored for split in SPLITS if (scored := self.observed(split).scored)}

    def score(self, split: Split, change: Change) -> Scored:
        """Return the task's answers on a split that has data, every layer's z_q replaced by `change`."""
        scored = observe(self, split, change).scored
        assert scored is not None
        return scored
