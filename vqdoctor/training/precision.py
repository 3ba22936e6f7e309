"""Whether a model can be trained in bfloat16: where that is fast and changes nothing that counts."""

from __future__ import annotations

import contextlib
import math

import torch

from vqdoctor.capture.layer import CapturedLayer, Change, watching
from vqdoctor.core.errors import UserError
from vqdoctor.models.task import Batch, Task
from vqdoctor.models.untouched import in_eval_mode
from vqdoctor.training.treatment import reshaped

MIXED_ON = ("cuda",)
"""Devices on which a model is trained in bfloat16, and its VQ layers in float32."""
TOLERANCE = 0.02
"""By what share the task loss may change in bfloat16, whose numbers have a precision of 0.4 %."""


def device_of(model: torch.nn.Module) -> torch.device:
    """Return the device of a model's first parameter; the CPU where it has none."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 faster than in float32."""
    if device.type not in MIXED_ON:
        return False
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def against_bfloat16(
    model: torch.nn.Module, task: Task, batch: Batch, layers: tuple[CapturedLayer, ...], change: Change | None
) -> str | None:
    """Return the objection to training in bfloat16 with the VQ layers in float32; None if there is none.

    A batch is run in either precision, in eval mode and without gradients.

    Args:
        model: the model, in float32.
        task: its task.
        batch: a train batch.
        layers: its VQ layers.
        change: gives the tensor that the model gets in place of z_q, such as `bypass`.
    """
    if any(isinstance(layer.module, torch.jit.ScriptModule) for layer in layers):
        return "a scripted VQ layer cannot be kept in float32"
    with in_eval_mode(model), torch.no_grad():
        with watching(layers, change) as watched:
            exact = float(task.losses(model, batch).task)
        if any(watched[layer.module].by_method for layer in layers):
            return "a VQ layer that is used through its methods cannot be kept in float32"
        with contextlib.ExitStack() as stack:
            stack.enter_context(reshaped(layers, "own", full_precision=True))
            stack.enter_context(torch.autocast(device_of(model).type, dtype=torch.bfloat16))
            stack.enter_context(watching(layers, change))
            try:
                rounded = float(task.losses(model, batch).task)
            except (RuntimeError, UserError) as error:  # an operation that bfloat16 does not have
                why = str(error).partition("\n")[0]
                return f"in bfloat16 the model fails ({why})"
    if math.isclose(rounded, exact, rel_tol=TOLERANCE):
        return None
    return f"in bfloat16 the task loss is {rounded:.4g}, not {exact:.4g}"
