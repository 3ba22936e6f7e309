"""Finding the rounding that a model writes into its own forward, outside any VQ layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from vqdoctor.capture.call import Call
from vqdoctor.capture.discover import Discovered, implicit, read
from vqdoctor.models.roundings import PATH, Rounded, attach_rounding, roundings_found
from vqdoctor.models.task import Losses
from vqdoctor.models.untouched import seed_all


def rounded(copy: Callable[[bool], nn.Module], run: Callable[[nn.Module], Losses]) -> Discovered:
    """Return the layer without a codebook whose vectors the model itself rounds, if there is a single one.

    Args:
        copy: returns a working copy, in train mode or not.
        run: runs a model on a batch.
    """
    modes = {training: _single(copy(training), run) for training in (True, False)}
    training, evaluated = modes[True], modes[False]
    if training is None or evaluated is None:
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
    """Whether the task loss depends on what a rounding puts out: that of a score alone is not a layer."""
    attach_rounding(model, **forms)
    found = []
    for shift in (0.0, 1.0):
        hook = model.get_submodule(PATH).register_forward_hook(partial(_shifted, by=shift))
        seed_all(0)
        with torch.no_grad():
            found.append(float(run(model).task))
        hook.remove()
    return found[0] != found[1]


def _shifted(module: nn.Module, args: object, output: torch.Tensor, by: float) -> torch.Tensor:
    return output + by


def _single(model: nn.Module, run: Callable[[nn.Module], Losses]) -> Rounded | None:
    """Return the only rounding of a pass: that of the estimator, or else the rounding itself."""
    with torch.no_grad(), roundings_found() as found:
        run(model)
    estimators = [event for event in found if event.estimator]
    events = estimators or found
    return events[0] if len(events) == 1 else None
