"""In how many directions z_e, the codes that it chooses, and the input that z_e depends on vary."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from vqdoctor.capture.call import FAILURES
from vqdoctor.capture.layer import CapturedLayer, Watched, watching
from vqdoctor.capture.vectors import rows
from vqdoctor.core.evidence import Directions
from vqdoctor.metrics.geometry import variance_shares
from vqdoctor.probes._directions import directions, felt
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._enough import Enough
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model.data_match import asked


def measure(context: ModelContext) -> dict[str, Directions]:
    """Return the directions of every layer's z_e and codes, on all splits together."""
    of_input: dict[str, int] = {}
    with contextlib.suppress(*FAILURES):
        of_input = _of_input(context)
    measured = {}
    for name, layer in context.layers.items():
        seen = context.seen_of(name)
        vectors, chosen = asked(layer.reader, seen), context.all_codes(name)
        if vectors is not None and len(chosen):
            measured[name] = directions(
                layer.view.codebook,
                np.bincount(chosen, minlength=layer.view.num_codes),
                source="batch",
                vectors=layer.reader.as_compared(vectors),
                input_directions=of_input.get(name),
            )
    return measured


def _of_input(context: ModelContext) -> dict[str, int]:
    """Return, by layer, in how many directions that part of the input varies that one vector depends on."""
    model = context.copy(training=False)
    layers = [layer.on(model) for layer in context.mapped.values()]
    inputs: list[torch.Tensor] = []
    reached: dict[str, torch.Tensor] = {}
    for number, batch in enumerate(context.first_batches):
        with (
            contextlib.suppress(Enough),
            _traced(model, alone=number > 0) as given,
            watching(layers, keep_graph=number == 0) as watched,
        ):
            context.task.losses(model, batch)
        if not given:
            return {}
        inputs.append(given[0].detach().float().flatten(1))
        if number == 0:
            reached = _reached(layers, watched, given[0], context.seed)
    same = [x for x in inputs if x.shape[1] == inputs[0].shape[1]]
    samples = torch.cat(same).cpu().numpy()
    return {name: felt(variance_shares(samples[:, part.cpu().numpy()])) for name, part in reached.items()}


@contextlib.contextmanager
def _traced(model: nn.Module, *, alone: bool) -> Iterator[list[torch.Tensor]]:
    """Give the model's first float argument a graph, and yield it as it is called: one tensor, or none.

    Args:
        model: the model.
        alone: whether the argument is all that is asked for; then `Enough` ends the pass.
    """
    given: list[torch.Tensor] = []

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = (t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor) and t.ndim > 1)
        x = next((t for t in tensors if t.is_floating_point()), None)
        if x is None or given:
            return None
        given.append(x.detach().clone().requires_grad_())
        if alone:
            raise Enough
        alive = given[0].clone()  # a model may change its input in place
        named = {name: alive if t is x else t for name, t in kwargs.items()}
        return tuple(alive if t is x else t for t in args), named

    hook = model.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield given
    finally:
        hook.remove()


def _reached(
    layers: list[CapturedLayer], watched: Watched, x: torch.Tensor, seed: int
) -> dict[str, torch.Tensor]:
    """Return, by layer, which elements of a sample x [B, ...] its middle vector depends on, bool [any]."""
    generator = torch.Generator().manual_seed(seed)
    reached = {}
    for layer in layers:
        calls = layer.calls(watched)
        if calls:
            vectors = rows(calls[0].z_e, layer.reader.axis(calls[0]))
            middle = vectors[:, vectors.shape[1] // 2]
            pull = gradient(middle, x, torch.randn(middle.shape, generator=generator).to(middle))
            if pull is not None:
                reached[layer.name] = (pull.flatten(1) != 0).any(dim=0)
    return reached


WHY_NOT = "the vectors that the codebook is asked for, or the codes that are chosen, are not seen"
PROBE = each_layer(Directions, measure, WHY_NOT, mode="eval", by_gradient=False)
