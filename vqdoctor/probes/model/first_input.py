"""The size of the numbers that the first layer with weights gets: what is left of the input's own scale."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from vqdoctor.core.evidence import FirstInput
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import of_model
from vqdoctor.probes.probe import Missing

_WITH_WEIGHTS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.RNNBase, nn.Bilinear,
)  # fmt: skip


def measure(context: ModelContext) -> FirstInput:
    """Return the size of the first such layer's input over the first batches.

    A model may divide its input by 255 itself, so the batch alone does not tell.
    """
    model = context.copy(training=False)
    squares, count, largest, name = 0.0, 0, 0.0, ""
    seen: list[tuple[str, torch.Tensor]] = []

    def note(of: str) -> Any:
        def look(_: nn.Module, args: tuple[Any, ...]) -> None:
            if not seen and args and isinstance(args[0], torch.Tensor) and args[0].is_floating_point():
                seen.append((of, args[0].detach()))

        return look

    with ExitStack() as stack, torch.no_grad():
        for path, module in model.named_modules():
            if isinstance(module, _WITH_WEIGHTS):
                stack.callback(module.register_forward_pre_hook(note(path)).remove)
        for batch in context.first_batches:
            seen.clear()
            context.task.losses(model, batch)
            for path, values in seen:
                name = path
                squares += float(values.double().square().sum())
                count += values.numel()
                largest = max(largest, float(values.abs().max()) if values.numel() else 0.0)
    if not count or not math.isfinite(squares):
        raise Missing("no layer with weights gets finite numbers first")
    return FirstInput(
        source="batch", sample_size=count, module=name, rms=math.sqrt(squares / count), largest=largest
    )


PROBE = of_model(FirstInput, measure, mode="eval")
