"""Does a gradient that reaches z_q arrive at z_e? A vector-Jacobian product with a random cotangent.

Not the training loss: its commitment term reaches z_e by another way and hides a missing estimator.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from vqdoctor.capture.call import FAILURES, first_float
from vqdoctor.capture.pulls import leading_to
from vqdoctor.capture.reader import EXACT, Reader
from vqdoctor.capture.step import Step
from vqdoctor.capture.vectors import rows
from vqdoctor.core.evidence import GradientPath
from vqdoctor.core.frozen import frozen
from vqdoctor.layouts.stacks import stacks
from vqdoctor.metrics.geometry import spread
from vqdoctor.metrics.match import nearest
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model._looks import Looking, shared
from vqdoctor.probes.model._temperature import warmed
from vqdoctor.probes.model.task_gradient import DETACHED, UNTRAINED, passed_by, untrained
from vqdoctor.probes.probe import Missing

ROUNDING = 1e-4
"""Relative difference up to which two float32 gradients are the same."""
MOST = 0.5
"""Share of vectors without a gradient above which a temperature is looked for."""
OUTSIDE = "the estimator is outside the layer: the task's gradient reaches z_e around z_q"
NO_GRAD = "the model runs the layer under no_grad: there is no gradient path to judge"


@frozen
class _Vjp:
    """Per vector: what arrived at z_e, what was sent into z_q, and the norms of both."""

    arrived: torch.Tensor
    sent: torch.Tensor
    z_e: torch.Tensor
    z_q: torch.Tensor
    is_path: bool
    rounding: float
    puts_out_z_e: bool


@frozen
class _Looked:
    """Each layer's products; why nothing need arrive at it; and the levels among which that is unclear."""

    products: dict[str, list[_Vjp]]
    elsewhere: dict[str, str]
    unclear: dict[str, set[str]]


@shared()
def look(context: ModelContext) -> Looking[_Looked]:
    """See what arrives at z_e."""
    products: dict[str, list[_Vjp]] = defaultdict(list)
    elsewhere: dict[str, str] = {}
    unclear: dict[str, set[str]] = {}
    stacked = {view.name: {v.name for v in stack} for stack in stacks(context.views) for view in stack}
    number = 0
    while (steps := (yield None)) is not None:
        for name, step in steps.items():
            if not step.data.any():
                continue  # a level that this batch left out
            product = _vjp(step, context.seed + number)
            products[name].append(product)
            if not product.arrived.any():
                levels = [other for key, other in steps.items() if key in stacked.get(name, ())]
                elsewhere.setdefault(name, _elsewhere(step, levels))
                if not elsewhere[name] and any(level.z_e.is_leaf for level in (step, *levels)):
                    unclear[name] = {level.layer.name for level in (step, *levels)}
        number += 1
    return _Looked(products=products, elsewhere=elsewhere, unclear=unclear)


def measure(context: ModelContext) -> dict[str, GradientPath | Missing]:
    """Return the gradient path of every layer."""
    looked = look.at(context)
    passed = _passed_by(context) if looked.unclear else set()
    around = {name: OUTSIDE for name, levels in looked.unclear.items() if levels & passed}
    detached = dict.fromkeys(passed_by(context) if looked.unclear else (), DETACHED)
    nothing = dict.fromkeys(untrained(context) if looked.unclear else (), UNTRAINED)
    elsewhere = looked.elsewhere | detached | around | nothing
    judged = {name: _judge(found) for name, found in looked.products.items() if not elsewhere.get(name)}
    return {
        name: _with_temperature(context, name, judged[name]) if name in judged else Missing(elsewhere[name])
        for name in looked.products
    }


def _with_temperature(context: ModelContext, name: str, found: GradientPath) -> GradientPath:
    """Return the path with the layer's temperature, where that may keep the gradient from most vectors."""
    low = warmed(context, name) if found.estimator == "custom" and found.zero_share > MOST else None
    if low is None:
        return found
    return found.replace(temperature_name=low.name, temperature=low.value, zero_share_at_one=low.zero_share)


def _elsewhere(step: Step, levels: Iterable[Step]) -> str:
    """Return why nothing need arrive at z_e through the layer; "" if it should.

    A model may look codes up in a module and write `z_e + (z_q - z_e).detach()` itself. Then the task's
    gradient passes z_q by, and reaches z_e all the same. Around the sum of several levels it passes all of
    them by, and reaches the z_e of the first alone: those of the others are residuals. Where z_e is a view or
    a copy of what the estimator is written on, the gradient reaches the parameters that both are made of. A
    path is enough: behind units that are out of action the gradient along it is zero.

    Args:
        step: the layer at work.
        levels: the layers of its stack in the same pass, itself included.
    """
    if not step.call.recorded:
        return NO_GRAD
    if step.pulls.of(step.losses.task, step.entered) is not None:
        return ""
    reached = (level.pulls.of(level.losses.task, level.z_e) is not None for level in (step, *levels))
    learned = {name: p for name, p in step.pulls.parameters.items() if name in step.pulls.of_task}
    return OUTSIDE if any(reached) or leading_to(step.z_e, learned) else ""


def _passed_by(context: ModelContext) -> set[str]:
    """Return the layers whose z_e has no graph, as behind `no_grad`, and that an estimator passes by.

    Where z_e has no graph, a step's graph begins inside the layer, and shows the layer alone. Here the
    model's own tensor begins it, and is put back as it was.
    """
    model = context.copy(training=True)
    alive: dict[str, torch.Tensor] = {}

    def begin(name: str) -> Any:
        def mark(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            z_e = first_float((args, kwargs))
            if name not in alive and z_e is not None and z_e.is_leaf and not z_e.requires_grad:
                alive[name] = z_e.requires_grad_()
                stack.callback(z_e.requires_grad_, False)

        return mark

    with contextlib.ExitStack() as stack, contextlib.suppress(*FAILURES):
        for name, layer in context.mapped.items():
            hook = layer.on(model).module.register_forward_pre_hook(begin(name), with_kwargs=True)
            stack.callback(hook.remove)
        task = context.task.losses(model, context.first_batches[0]).task
        return {name for name, z_e in alive.items() if gradient(task, z_e) is not None}
    return set()


def _vjp(step: Step, seed: int) -> _Vjp:
    """Return the vector-Jacobian product of a seeded random cotangent."""
    generator = torch.Generator().manual_seed(seed)
    cotangent = torch.randn(step.z_q.shape, generator=generator).to(step.z_q)
    g = gradient(step.z_q, step.z_e, cotangent)
    arrived = torch.zeros_like(step.z_e) if g is None else g
    z_e, z_q, arrived, sent = (
        rows(t.detach(), step.axis).flatten(0, 1)[step.data].float()
        for t in (step.z_e, step.z_q, arrived, cotangent)
    )
    coarsest = max(torch.finfo(t.dtype).eps for t in (step.z_e, step.z_q))
    rounding = max(ROUNDING, 4 * coarsest)  # under autocast some of it is computed in bfloat16
    same = z_e.shape == z_q.shape and float((z_q - z_e).norm()) <= rounding * float(z_e.norm())
    return _Vjp(
        arrived=arrived,
        sent=sent,
        z_e=z_e.norm(dim=1),
        z_q=z_q.norm(dim=1),
        is_path=g is not None,
        rounding=rounding,
        puts_out_z_e=same and _is_no_code(step.layer.reader, z_e),
    )


def _is_no_code(reader: Reader, z_e: torch.Tensor) -> bool:
    """Return whether vectors [N, D] lie beside the codes."""
    if not reader.has_codebook or z_e.shape[1] != reader.view.dim:
        return False
    codebook = reader.as_compared(reader.view.codebook)
    found = nearest(reader.as_compared(z_e.cpu().numpy()), codebook)
    return bool(np.median(found.vector_distance) > EXACT * spread(codebook))


def _judge(products: list[_Vjp]) -> GradientPath:
    g, v, z_e, z_q = (
        torch.cat([getattr(p, part) for p in products]) for part in ("arrived", "sent", "z_e", "z_q")
    )
    rounding = products[0].rounding
    sent, arrived = v.norm(dim=1), g.norm(dim=1)
    gain = arrived / sent
    ratio = float(arrived.norm() / sent.norm())
    comparable = g.shape == v.shape  # a Gumbel layer's codes may have another dimension than its input
    if not any(p.is_path for p in products):
        estimator = "none"
    elif ratio == 0:
        estimator = "zero"
    elif comparable and float((g - v).norm() / sent.norm()) < rounding:
        estimator = "straight-through"
    elif comparable and float((gain * z_e - z_q).norm() / z_q.norm().clamp_min(1e-30)) < rounding * 10:
        estimator = "rotation"
    else:
        estimator = "custom"
    return GradientPath(
        source="batch",
        sample_size=len(g),
        estimator=estimator,
        ratio=ratio,
        cosine=float((g * v).sum() / (g.norm() * v.norm())) if ratio and comparable else None,
        zero_share=float((arrived == 0).float().mean()),
        worst_gain=float(gain.max()),
        puts_out_z_e=estimator == "none" and all(p.puts_out_z_e for p in products),
    )


PROBE = each_layer(GradientPath, measure, mode="train", needs_codebook=False)
