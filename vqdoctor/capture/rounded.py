"""Finding the rounding that a model writes into its own forward, outside any VQ layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from vqdoctor.capture.call import Call
from vqdoctor.capture.discover import Discovered, implicit, read
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
    if not training.estimator and not _matters(copy(True), run, forms):
        return Discovered()
    call = Call.of(nn.Identity(), (evaluated.z_e,), {}, evaluated.z_e)
    call.take(evaluated.z_q)
    found = read(PATH, nn.Identity(), call)
    if found is None or found.num_codes is None:
        return Discovered()
    return Discovered(implicit=(implicit(PATH, found, found.num_codes),), places={PATH: PATH}, rounding=forms)


def _matters(model: nn.Module, run: Callable[[nn.Module], Losses], forms: Mapping[str, bool]) -> bool:
    """Whether the task loss has a gradient at what a rounding puts out: no score, and no place in a table."""
    attach_rounding(model, **forms)
    shown: list[torch.Tensor] = []

    def as_leaf(module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        shown.append(output.detach().requires_grad_())
        return shown[-1]

    hook = model.get_submodule(PATH).register_forward_hook(as_leaf)
    task = run(model).task
    hook.remove()
    if not shown or not task.requires_grad:
        return False
    found: tuple[torch.Tensor | None, ...] = torch.autograd.grad(task, shown[:1], allow_unused=True)
    return found[0] is not None and bool(found[0].any())


def _single(model: nn.Module, run: Callable[[nn.Module], Losses]) -> Rounded | None:
    """Return the only rounding of a pass: that of the estimator, or else the rounding itself."""
    with torch.set_grad_enabled(model.training), roundings_found() as found:
        run(model)
    estimators = [event for event in found if event.estimator]
    events = estimators or found
    return events[0] if len(events) == 1 else None
