"""One training step of the task, its backward pass included: how often does it advance the EMA of a layer?"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from vqdoctor.capture.call import FAILURES, first_float
from vqdoctor.capture.decay import own_decay
from vqdoctor.capture.layer import CapturedLayer, watching
from vqdoctor.core.evidence import EmaAdvances
from vqdoctor.models.untouched import seed_all
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.probe import Missing

_FIT = 0.01
"""Largest part of a change of the counts that no decay explains: rounding, and no revival or second input."""


class _Advances:
    """Follows the calls of one layer: the z_e of each that changed the EMA counts.

    A call under checkpointing ends without its last hook, as soon as the backward pass has what it needs.
    """

    def __init__(self, layer: CapturedLayer) -> None:
        self._layer = layer
        self._begun: tuple[torch.Tensor, torch.Tensor] | None = None
        self.z_e: list[torch.Tensor] = []

    def begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.settle()
        given, counts = first_float((args, kwargs)), self._layer.stored("counts")
        if given is not None and counts is not None:
            self._begun = given.detach().clone(), counts.detach().clone()

    def settle(self, *_: Any) -> None:
        """Take the last call into account, which has ended or was broken off."""
        counts = self._layer.stored("counts")
        if self._begun is not None and counts is not None and not torch.equal(self._begun[1], counts):
            self.z_e.append(self._begun[0])
        self._begun = None

    @property
    def times(self) -> int:
        """The most calls that got the same z_e."""
        return max((sum(torch.equal(one, other) for other in self.z_e) for one in self.z_e), default=0)


def _free(parameter: torch.Tensor) -> None:
    parameter.grad = None


def measure(context: ModelContext) -> dict[str, EmaAdvances]:
    """Return, for every layer with EMA counts, how often one step advances them by the same vectors."""
    model = context.copy(training=True)
    layers = {name: layer.on(model) for name, layer in context.mapped.items() if "counts" in layer.tensors}
    if not layers:
        raise Missing("no layer stores EMA counts")
    seen: dict[str, _Advances] = {name: _Advances(layer) for name, layer in layers.items()}
    by_module: dict[nn.Module, list[_Advances]] = defaultdict(list)
    for name, layer in layers.items():
        by_module[layer.module].append(seen[name])
    seed_all(context.seed)
    with ExitStack() as stack:
        for module, advances in by_module.items():
            for one in advances:
                stack.callback(module.register_forward_pre_hook(one.begin, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(one.settle).remove)
        for parameter in model.parameters():
            if parameter.requires_grad:  # its gradient is freed at once: of a large model all take their room
                hook = parameter.register_post_accumulate_grad_hook(_free)  # type: ignore[no-untyped-call]
                stack.callback(hook.remove)
        try:
            losses = context.task.losses(model, context.first_batches[0])
            total = losses.task if losses.vq is None else losses.task + losses.vq
            if total.requires_grad:
                total.backward()  # type: ignore[no-untyped-call]
        except FAILURES as error:
            raise Missing(f"a training step fails ({type(error).__name__})") from error
    for one in seen.values():
        one.settle()
    decays = _decays(context)
    return {
        name: EmaAdvances(
            source="batch",
            sample_size=len(one.z_e),
            times=one.times,
            decay=decays[name][0],
            applied=decays[name][1],
        )
        for name, one in seen.items()
        if one.z_e
    }


def _decays(context: ModelContext) -> dict[str, tuple[float | None, float | None]]:
    """Return, for each layer, the decay that it keeps, and how many times a pass in train mode applies it.

    The latter is None where a second pass applies it another number of times: a decay that warms up does.
    """
    model = context.copy(training=True)
    layers = context.on(model)
    first, second = (_applied(context, model, layers) for _ in range(2))
    return {
        layer.name: (own_decay(layer), first[layer.name])
        if math.isclose(first.get(layer.name, 0.0), second.get(layer.name, -1.0), rel_tol=_FIT)
        else (own_decay(layer), None)
        for layer in layers
    }


def _applied(context: ModelContext, model: nn.Module, layers: Sequence[CapturedLayer]) -> dict[str, float]:
    """Run the first batch in train mode; return how many times each layer applied the decay that it keeps."""
    before = {
        layer.name: counts.clone() for layer in layers if (counts := layer.stored("counts")) is not None
    }
    seed_all(context.seed)
    with watching(layers) as watched, torch.no_grad():
        context.task.losses(model, context.first_batches[0])
    found = {}
    for layer in layers:
        decay, chosen, after = own_decay(layer), layer.counts(watched), layer.stored("counts")
        if decay is not None and chosen is not None and after is not None and layer.name in before:
            measured = _decay(before[layer.name], after, chosen)
            if measured is not None:
                found[layer.name] = math.log(measured) / math.log(decay)
    return found


def _decay(before: torch.Tensor, after: torch.Tensor, chosen: torch.Tensor) -> float | None:
    """Return d of after = d before + (1 - d) chosen, each [K]; None where no d fits."""
    old, new = (t.detach().double().cpu().flatten() for t in (before, after))
    if not old.shape == new.shape == chosen.shape:
        return None
    step = old - chosen
    size = float(step @ step)
    if not size > 0:
        return None
    d = float(step @ (new - chosen)) / size
    off = float((d * old + (1 - d) * chosen - new).norm())
    return d if 0 < d < 1 and off <= _FIT * float((new - old).norm()) else None


PROBE = each_layer(EmaAdvances, measure, "a training step does not change its EMA counts", mode="train")
