"""One VQ layer while its model is retrained: watched, treated, and its codes written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from vqdoctor.capture.codebook import LiveCodebook
from vqdoctor.capture.vectors import rows
from vqdoctor.capture.watch import Call, Watch, replaced, swap, watch
from vqdoctor.core.training_plan import Estimator, Geometry, TrainingPlan
from vqdoctor.models.task import Batch, Task
from vqdoctor.models.tensors import tensors_of
from vqdoctor.probes.model import Reader
from vqdoctor.vq.estimators import rotation, straight_through
from vqdoctor.vq.kmeans import nearest

DECAYS = ("decay", "_decay", "ema_decay", "gamma", "discount")
"""Names under which layers keep their EMA decay."""
_TINY = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One VQ layer of the model that is trained.

    Attributes:
        name: its name.
        module: the module whose input is z_e and whose output is z_q.
        lookup: the module in it that gets the vectors in the codebook's own dimension; None if none does.
        codebook: its tensors.
        reader: reads its calls.
    """

    name: str
    module: torch.nn.Module
    lookup: torch.nn.Module | None
    codebook: LiveCodebook
    reader: Reader

    @property
    def num_codes(self) -> int:
        """K."""
        return self.codebook.view.num_codes

    def vectors(self, watched: Watched) -> torch.Tensor | None:
        """Return what a pass asked the codebook for, float32 [N, D]; None where it cannot be seen."""
        dim = self.codebook.view.dim
        for module in (self.lookup, self.module):
            calls = watched.calls(module)
            if module is self.lookup and calls:
                asked = [found for call in calls if (found := self.reader.looked_up(call)) is not None]
                if asked:
                    return torch.from_numpy(asked[0]).to(self.codebook.tensors["codebook"].device)
            for call in calls:
                vectors = rows(call.z_e.detach(), self.reader.axis(call)).flatten(0, 1).float()
                if vectors.shape[1] == dim:
                    return vectors
        return None

    def chosen(self, watched: Watched) -> torch.Tensor | None:
        """Return the codes that a pass chose, int64 [N]; None where nothing tells.

        They are the layer's own, or else the nearest.
        """
        for call in watched.calls(self.module):
            codes = self.reader.given(call)
            if codes is not None:
                return codes.flatten()
        view = self.codebook.view
        vectors = None if view.lookup == "logits" else self.vectors(watched)
        if vectors is None:
            return None
        if view.lookup == "cosine":
            vectors = functional.normalize(vectors, dim=1)
        return nearest(vectors, self.codebook.codes())[0]

    def counts(self, watched: Watched) -> torch.Tensor | None:
        """Return how often a pass chose each code, float64 [K]; None where its output does not tell."""
        chosen = self.chosen(watched)
        if chosen is None:
            return None
        return torch.bincount(chosen[chosen >= 0], minlength=self.num_codes).double().cpu()


@dataclass(frozen=True, kw_only=True, eq=False)
class Watched:
    """What the modules of interest did in one pass."""

    seen: Mapping[torch.nn.Module, Watch]

    def calls(self, module: torch.nn.Module | None) -> list[Call]:
        """Return the calls of a module that told a z_q."""
        watched = None if module is None else self.seen.get(module)
        return [] if watched is None else [call for call in watched.calls if call.z_q is not None]


Change = Callable[[Layer, Call], torch.Tensor]


@contextlib.contextmanager
def watching(
    layers: tuple[Layer, ...], change: Change | None = None, *, keep_graph: bool = False
) -> Iterator[Watched]:
    """Watch the layers in one pass, and give the model `change`'s answer in place of z_q."""
    with contextlib.ExitStack() as stack:
        seen: dict[torch.nn.Module, Watch] = {}
        for layer in layers:
            if layer.module not in seen:
                own = None if change is None else _bound(change, layer)
                seen[layer.module] = stack.enter_context(
                    watch(layer.module, keep_graph=keep_graph, change=own)
                )
        for layer in layers:
            if layer.lookup is not None and layer.lookup not in seen:
                seen[layer.lookup] = stack.enter_context(watch(layer.lookup))
        yield Watched(seen=seen)


def _bound(change: Change, layer: Layer) -> Callable[[Call], torch.Tensor]:
    return lambda call: change(layer, call)


def bypass(layer: Layer, call: Call) -> torch.Tensor:
    """Let the model have z_e in place of z_q: the same model without VQ."""
    assert call.z_q is not None
    return call.z_e if call.z_e.shape == call.z_q.shape else call.z_q


def bypassable(model: torch.nn.Module, task: Task, batch: Batch, layers: tuple[Layer, ...]) -> bool:
    """Return whether z_e has the shape of z_q at every layer, so that the model runs without VQ."""
    with torch.no_grad(), watching(layers) as watched:
        task.losses(model, batch)
    calls = [call for layer in layers for call in watched.calls(layer.module)]
    return bool(calls) and all(c.z_q is not None and c.z_e.shape == c.z_q.shape for c in calls)


def grafts(plan: TrainingPlan) -> Change | None:
    """Return what puts the plan's estimators behind the layers; None where every layer keeps its own."""
    if not plan.estimators:
        return None

    def graft(layer: Layer, call: Call) -> torch.Tensor:
        return _graft(plan.estimators.get(layer.name, "own"), layer, call)

    return graft


def _graft(kind: Estimator, layer: Layer, call: Call) -> torch.Tensor:
    z_e, z_q = call.z_e, call.z_q
    assert z_q is not None
    if kind == "own" or z_e.shape != z_q.shape:
        return z_q
    if kind == "straight-through":
        return straight_through(z_e, z_q)
    return rotation(z_e, z_q, layer.reader.axis(call))


def set_decay(layer: Layer, decay: float) -> bool:
    """Set the EMA decay of a layer's modules; return whether any of them keeps one."""
    found = False
    for module in layer.module.modules():
        for name in DECAYS:
            value = vars(module).get(name)
            if isinstance(value, float) and 0.0 < value < 1.0:
                setattr(module, name, decay)
                found = True
    return found


@contextlib.contextmanager
def reshaped(layers: tuple[Layer, ...], geometry: Geometry, *, full_precision: bool) -> Iterator[None]:
    """Change what the layers get while the context lasts: its geometry, and its precision."""
    with contextlib.ExitStack() as stack:
        for module in dict.fromkeys(layer.module for layer in layers):
            if geometry != "own":
                reader = next(layer.reader for layer in layers if layer.module is module)
                stack.callback(module.register_forward_pre_hook(_reshape(geometry, reader)).remove)
            if full_precision:
                stack.enter_context(_precise(module))
        yield


def _precise(module: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
    """Run a module in float32, whatever the precision of what it gets and of what is around it."""
    forward = module.forward

    def precise(*args: Any, **kwargs: Any) -> Any:
        given = (args, kwargs)
        for tensor in tensors_of(given):
            if tensor.is_floating_point() and tensor.itemsize < torch.float32.itemsize:
                given = swap(given, tensor, tensor.float())
        device = next((tensor.device.type for tensor in tensors_of(given)), "cpu")
        with torch.autocast(device, enabled=False):
            return forward(*given[0], **given[1])

    return replaced(module, "forward", precise)


def _reshape(geometry: Geometry, reader: Reader) -> Callable[..., tuple[Any, ...] | None]:
    def reshape(_: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not args or not isinstance(args[0], torch.Tensor) or not args[0].is_floating_point():
            return None
        z_e = args[0]
        axis = reader.axis(Call(z_e=z_e))
        if geometry == "sphere":
            return (functional.normalize(z_e, dim=axis), *args[1:])
        centred = z_e - z_e.mean(dim=axis, keepdim=True)
        return (centred / (centred.square().mean(dim=axis, keepdim=True) + _TINY).sqrt(), *args[1:])

    return reshape
