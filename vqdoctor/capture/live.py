"""A model that its own training loop runs: where its VQ layers are, and what they do in chosen steps.

Nothing of the training is changed: hooks look at the calls of chosen steps and return nothing, the layers are
located on a copy, and the random states are as before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._pytree import tree_map_only

from vqdoctor.capture.call import Args, Call, Kwargs
from vqdoctor.capture.layer import CapturedLayer, watching
from vqdoctor.capture.run import Capture
from vqdoctor.core.errors import UserError
from vqdoctor.core.frozen import frozen
from vqdoctor.layouts import Found, find_quantizers
from vqdoctor.models.task import Batch, Losses, Split
from vqdoctor.models.tensors import tensors_of
from vqdoctor.models.untouched import same_randomness

MOST_CALLS = 4
"""Calls of the model whose arguments are kept, the latest."""


@dataclass(kw_only=True, eq=False)
class Replay:
    """The latest calls of a training's model, as a `Task` that runs a copy on the same arguments again.

    A loop may call the model, or a part of it alone that holds the VQ layers: the outermost module that is
    called counts. The training's losses are unknown here: the task loss is a random projection of the output.
    It shows the way of a gradient, and not its size.

    Attributes:
        own: the model.
        paths: the modules that may be called, the outermost first.
        calls: path to the arguments of its latest calls, positional and by keyword.
    """

    own: nn.Module
    paths: Sequence[str] = ("",)
    calls: dict[str, list[tuple[Args, Kwargs]]] = field(default_factory=dict)
    vq_weight: float | None = None
    vq_loss_unknown: bool = True

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Keep the arguments of the calls in train mode, without their graph, while the context lasts."""
        with ExitStack() as stack:
            for path in self.paths:
                module = self.own.get_submodule(path)
                hook = module.register_forward_pre_hook(partial(self._note, path), with_kwargs=True)
                stack.callback(hook.remove)
            yield

    def _note(self, path: str, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if module.training:
            if kwargs or not all(isinstance(arg, torch.Tensor) for arg in args):
                given: tuple[Args, Kwargs] = tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
            else:  # as mostly, without a walk through containers
                given = (tuple(arg.detach() for arg in args), {})
            self.calls[path] = [*self.calls.get(path, [])[1 - MOST_CALLS :], given]

    @property
    def called(self) -> str | None:
        """The path of the outermost module that was called; None before the first call."""
        return next((path for path in self.paths if path in self.calls), None)

    def model(self) -> nn.Module:
        """Return the model."""
        return self.own

    def batches(self, split: Split) -> Sequence[Batch]:
        """Return the calls: data of the training, which no other split shall count again."""
        return () if split != "train" or self.called is None else self.calls[self.called]

    def losses(self, model: nn.Module, batch: Batch) -> Losses:
        """Run a model on the arguments of a call."""
        args, kwargs = batch
        output = model.get_submodule(self.called or "")(*args, **kwargs)
        floats = [t for t in tensors_of(output) if t.is_floating_point()]
        floats = [t for t in floats if t.ndim and t.requires_grad] or floats
        draw = torch.Generator().manual_seed(0)
        parts = [(t.float() * torch.randn(t.shape, generator=draw).to(t.device)).mean() for t in floats]
        return Losses(task=torch.stack(parts).sum() if parts else torch.zeros(()))

    @property
    def samples(self) -> int | None:
        """The samples of the latest call: the length of its first tensor; None where there is none."""
        first = next((t for t in tensors_of(self.batches("train")[-1:]) if t.ndim), None)
        return None if first is None else len(first)


@frozen
class LiveTensor:
    """A tensor of a running model, with the values that it has when it is read."""

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> str:
        """Its element type as torch names it."""
        return str(self.tensor.dtype).removeprefix("torch.")

    def read(self) -> NDArray[np.generic]:
        """Return a copy of its values; floats that numpy has no type for are widened."""
        values = self.tensor.detach()
        small = values.is_floating_point() and values.dtype not in (torch.float16, torch.float64)
        found: NDArray[np.generic] = (values.float() if small else values).cpu().numpy().copy()
        return found


def find_live(model: nn.Module) -> Found:
    """Return the VQ layers that the state dict of a model shows."""
    return find_quantizers({name: LiveTensor(tensor=t) for name, t in model.state_dict().items()})


def around(model: nn.Module, found: Found) -> tuple[str, ...]:
    """Return the paths of the modules that hold all VQ layers, from the model itself inwards.

    Where the state dict shows none, the model's own parts are among them.
    """
    owners = [view.keys["codebook"].split(".")[:-1] for view in found.views]
    if not owners:
        return ("", *(name for name, _ in model.named_children()))
    common = [
        parts[0]
        for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*owners, strict=False))
    ]
    paths = [".".join(common[:depth]) for depth in range(len(common) + 1)]
    return tuple(p for p in paths if not isinstance(model.get_submodule(p), nn.ModuleList | nn.ModuleDict))


C = TypeVar("C", bound=Capture)


def locate_live(replay: Replay, found: Found, kind: type[C], seed: int = 0) -> C:
    """Return the capture of a training's model, its layers located by running a copy on its latest call.

    Args:
        replay: the model and its calls.
        found: the layers that its state dict shows.
        kind: the class of the capture.
        seed: of all that is drawn.

    Raises:
        UserError: if the model was not called, or no VQ layer can be watched in it.
    """
    if replay.called is None:
        what = "the training did not call the model that the monitor got"
        raise UserError(what, "give the monitor the module that the loop calls, in train mode")
    device = next((t.device for t in replay.own.state_dict().values()), torch.device("cpu"))
    capture = kind(
        model=replay.own, task=replay, views=found.views, device=device, seed=seed, train_batches=1
    )
    with same_randomness(seed):
        hidden = not found.views or found.unseen  # layers that a state dict does not show
        if hidden and (more := capture.discover()).views:
            capture = replace(capture, views=(*found.views, *more.views), discovered=more)
        if not capture.mapped:
            hint = "`vqdoctor inspect` on a checkpoint shows what is found in it"
            raise UserError("no VQ layer can be watched in the model", hint)
    return capture


@dataclass(kw_only=True, eq=False)
class LayerStep:
    """One layer in one step of a training.

    Attributes:
        layer: the layer.
        call: its first call in train mode.
        chosen: the codes of that call, int64 [N], -1 where masked; None where unknown.
        samples: samples of the step; None where unknown.
        before: its codes before the step, float32 [K, D]; None in a light step, and without a codebook.
        counts_before: its EMA counts before the step, [K]; None likewise, and without counts.
        at_input: square of the norm of the total loss's gradient at z_e, one for each call.
        at_output: the same at z_q.
        losses: its own losses.
    """

    layer: CapturedLayer
    call: Call
    chosen: torch.Tensor | None
    samples: int | None
    before: torch.Tensor | None = None
    counts_before: torch.Tensor | None = None
    at_input: list[torch.Tensor] = field(default_factory=list)
    at_output: list[torch.Tensor] = field(default_factory=list)
    losses: tuple[torch.Tensor, ...] = ()


class StepWatch:
    """Watches the layers of a training's model in one step: from its making until `end`.

    A light watch keeps the codes that are chosen; a full one also looks at gradients and at moves.

    Attributes:
        watched: the calls of the layers.
    """

    def __init__(self, replay: Replay, layers: Sequence[CapturedLayer], *, full: bool) -> None:
        """Put the hooks on."""
        self._replay, self._layers, self._full = replay, tuple(layers), full
        self._gradients: dict[str, tuple[list[torch.Tensor], list[torch.Tensor]]] = {
            layer.name: ([], []) for layer in layers
        }
        stored = [layer for layer in layers if full and layer.stored() is not None]
        self._before = {layer.name: layer.codes() for layer in stored}
        counts = {layer.name: layer.codebook.counts for layer in stored}
        self._counts = {name: each.clone() for name, each in counts.items() if each is not None}
        self._stack = ExitStack()
        self._stack.enter_context(replay.noting())
        self.watched = self._stack.enter_context(watching(layers, self._look if full else None))

    def _look(self, layer: CapturedLayer, call: Call) -> None:
        """Ask autograd for the size of the gradients that will pass a call; the call stays as it is."""
        if not call.training:
            return
        assert call.z_q is not None
        for tensor, sizes in zip((call.given, call.z_q), self._gradients[layer.name], strict=True):
            if tensor.requires_grad:
                tensor.register_hook(partial(_add_size, sizes))  # type: ignore[no-untyped-call]

    def end(self) -> list[LayerStep]:
        """Take the hooks off and return what each layer that was called did."""
        self._stack.close()
        for watch in self.watched.values():
            watch.forwards = [call for call in watch.forwards if call.training]
            watch.methods = [call for call in watch.methods if call.training]
        return [
            LayerStep(
                layer=layer,
                call=calls[0],
                chosen=layer.chosen(self.watched),
                samples=self._replay.samples,
                before=self._before.get(layer.name),
                counts_before=self._counts.get(layer.name),
                at_input=self._gradients[layer.name][0],
                at_output=self._gradients[layer.name][1],
                losses=calls[0].losses,
            )
            for layer in self._layers
            if (calls := layer.calls(self.watched))
        ]


def _add_size(sizes: list[torch.Tensor], gradient: torch.Tensor) -> None:
    """Note the square of a gradient's norm, and leave the gradient as it is."""
    sizes.append(gradient.detach().float().square().sum())
