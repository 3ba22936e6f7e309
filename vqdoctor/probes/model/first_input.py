"""The size of the numbers that the first layer with weights gets: what is left of the input's own scale."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vqdoctor.core.evidence import FirstInput
from vqdoctor.models.device import moved
from vqdoctor.models.task import Batch
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._enough import Enough
from vqdoctor.probes.model._gaps import of_model
from vqdoctor.probes.probe import Missing

_WITH_WEIGHTS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.RNNBase, nn.Bilinear,
)  # fmt: skip


@dataclass(kw_only=True)
class Sum:
    """The input of the first layer with weights: its path; the numbers' squares, count and largest size."""

    module: str = ""
    squares: float = 0.0
    count: int = 0
    largest: float = 0.0

    @property
    def rms(self) -> float | None:
        """The root mean square of the numbers; None where there are none, or one is not finite."""
        return math.sqrt(self.squares / self.count) if self.count and math.isfinite(self.squares) else None


def measure(context: ModelContext) -> FirstInput:
    """Return the size of the first such layer's input over the first batches.

    A model may divide its input by 255 itself, so the batch alone does not tell.
    """
    model = context.copy(training=False)
    train = first_input(context, model, context.first_batches)
    if train.rms is None:
        raise Missing("no layer with weights gets finite numbers first")
    others = itertools.islice(context.task.batches("val"), context.train_batches)
    val = first_input(context, model, (moved(batch, context.device) for batch in others))
    return FirstInput(
        source="batch",
        sample_size=train.count,
        module=train.module,
        rms=train.rms,
        largest=train.largest,
        val_rms=val.rms,
    )


def first_input(context: ModelContext, model: nn.Module, batches: Iterable[Batch]) -> Sum:
    """Return the input of a model's first layer with weights over batches, in the mode that it is in."""
    seen: list[tuple[str, torch.Tensor]] = []
    found = Sum()

    def note(of: str) -> Any:
        def look(_: nn.Module, args: tuple[Any, ...]) -> None:
            if not seen and args and isinstance(args[0], torch.Tensor) and args[0].is_floating_point():
                seen.append((of, args[0].detach()))
                raise Enough

        return look

    with ExitStack() as stack, torch.no_grad():
        for path, module in model.named_modules():
            if isinstance(module, _WITH_WEIGHTS):
                stack.callback(module.register_forward_pre_hook(note(path)).remove)
        for batch in batches:
            seen.clear()
            with suppress(Enough):
                context.task.losses(model, batch)
            for path, values in seen:
                found.module = path
                found.squares += float(values.double().square().sum())
                found.count += values.numel()
                largest = float(values.abs().max()) if values.numel() else 0.0
                found.largest = max(found.largest, largest)
    return found


PROBE = of_model(FirstInput, measure, mode="eval")
