"""Finding the rounding that a model writes into its own forward, outside any VQ layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from vqdoctor.capture.call import Call
from vqdoctor.capture.discover import Discovered, implicit, read
from vqdoctor.capture.pulls import leading_to
from vqdoctor.models.roundings import PATH, Rounded, attach_rounding, roundings_found
from vqdoctor.models.task import Losses


def rounded(copy: Callable[[bool], nn.Module], run: Callable[[nn.Module], Losses]) -> Discovered:
    """Return the layer without a codebook whose vectors the model itself rounds, if there is a single one.

    Args:
        copy: returns a working copy, in train mode or not.
        run: runs a model on a batch.
    """
    training = _single(copy(True), run)
    if training is None or not training.z_e.requires_grad:
        return Discovered()  # the rounding of data, which no encoder made
    evaluated = _single(copy(False), run)
    if evaluated is None:
        return Discovered()
    forms = {"estimator_in_training": training.estimator, "estimator_in_eval": evaluated.estimator}
    if not _is_bottleneck(copy(True), run, forms):
        return Discovered()
    call = Call.of(nn.Identity(), (evaluated.z_e,), {}, evaluated.z_e)
    call.take(evaluated.z_q)
    found = read(PATH, nn.Identity(), call)
    if found is None or found.num_codes is None:
        return Discovered()
    return Discovered(implicit=(implicit(PATH, found, found.num_codes),), places={PATH: PATH}, rounding=forms)


def _is_bottleneck(model: nn.Module, run: Callable[[nn.Module], Losses], forms: Mapping[str, bool]) -> bool:
    """Whether the task loss depends on what is rounded by the rounded vectors alone.

    It does not on the rounding of a score, or of places in a table. Vectors that go on beside their rounding,
    as through a hard gate or `z.sign() * z.abs().log1p()`, are not quantized. Weights are not data.
    """
    attach_rounding(model, **forms)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def as_leaf(module: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        seen.append((args[0], output.detach().requires_grad_()))
        return seen[-1][1]

    hook = model.get_submodule(PATH).register_forward_hook(as_leaf)
    task = run(model).task
    hook.remove()
    if len(seen) != 1 or not task.requires_grad or seen[0][0].is_leaf:
        return False
    z_e, z_q = seen[0]
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = [parameters[name] for name in leading_to(z_e, parameters)]
    grads: tuple[torch.Tensor | None, ...] = torch.autograd.grad(task, [z_q, *before], allow_unused=True)
    reached = [grad is not None and bool(grad.any()) for grad in grads]
    return reached[0] and not any(reached[1:])


def _single(model: nn.Module, run: Callable[[nn.Module], Losses]) -> Rounded | None:
    """Return the only rounding of a pass: that of the estimator, or else the rounding itself."""
    with torch.set_grad_enabled(model.training), roundings_found() as found:
        run(model)
    estimators = [event for event in found if event.estimator]
    events = estimators or found
    return events[0] if len(events) == 1 else None
