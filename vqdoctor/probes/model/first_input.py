"""The size of the numbers that the first layer with weights gets: what is left of the input's own scale."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vqdoctor.core.evidence import FirstInput
from vqdoctor.metrics.fill import fill_values
from vqdoctor.metrics.geometry import effective_rank
from vqdoctor.models.device import moved
from vqdoctor.models.task import Batch
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._enough import Enough
from vqdoctor.probes.model._gaps import of_model
from vqdoctor.probes.probe import Missing

_CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
)  # fmt: skip
_WITH_WEIGHTS = (nn.Linear, *_CONVOLUTIONS, nn.RNNBase, nn.Bilinear)
MOST_ROWS = 2048
"""Rows of channels whose effective rank is taken."""
MOST_NUMBERS = 2**20
"""Numbers among which fill values are looked for, where as many rows have them."""
_ROUNDING = 1e-6
"""Share of a channel's size below which its deviation is rounding: it is constant."""
MOST_CHANNELS = 512
"""Channels up to which their effective rank is taken, which takes the cube of their number."""


@dataclass(kw_only=True)
class Sum:
    """The input of the first layer with weights.

    Attributes:
        module: its path.
        squares: sum of the numbers' squares.
        count: how many numbers there are.
        largest: their largest size.
        rows: the first of them as rows of channels, float [any, C] each.
    """

    module: str = ""
    squares: float = 0.0
    count: int = 0
    largest: float = 0.0
    rows: list[torch.Tensor] = field(default_factory=list)

    @property
    def rms(self) -> float | None:
        """The root mean square of the numbers; None where there are none, or one is not finite."""
        return math.sqrt(self.squares / self.count) if self.count and math.isfinite(self.squares) else None

    def note(self, module: nn.Module, values: torch.Tensor) -> None:
        """Add the input of a call, whose channels are the last axis, or that before a convolution's own."""
        self.squares += float(values.double().square().sum())
        self.count += values.numel()
        self.largest = max(self.largest, float(values.abs().max()) if values.numel() else 0.0)
        if values.ndim > 1 and values.numel():
            at = -1 - len(module.kernel_size) if isinstance(module, _CONVOLUTIONS) else -1
            rows = values.movedim(at, -1).flatten(0, -2)
            left = max(MOST_ROWS, MOST_NUMBERS // rows.shape[1]) - sum(map(len, self.rows))
            self.rows += [rows[:left].float().cpu()] if left > 0 else []

    def table(self) -> NDArray[np.float32] | None:
        """Return the rows of channels [N, C]; None where there are none, or one is not finite."""
        if not self.rows or any(row.shape[1:] != self.rows[0].shape[1:] for row in self.rows):
            return None
        rows = torch.cat(self.rows).numpy()
        return rows if np.isfinite(rows).all() else None

    def ranks(self) -> tuple[float | None, float | None]:
        """Return the effective rank of the channels as they come, and with each at standard deviation one."""
        table = self.table()
        if table is None or len(table) < 2 or not 1 < table.shape[1] <= MOST_CHANNELS:
            return None, None
        rows = table[:MOST_ROWS]
        deviations = rows.std(axis=0, dtype=np.float64)
        varying = deviations > _ROUNDING * np.abs(rows).max(axis=0)
        scaled = (rows[:, varying] - rows[:, varying].mean(axis=0, dtype=np.float64)) / deviations[varying]
        return effective_rank(rows), effective_rank(scaled.astype(np.float32)) if varying.any() else 0.0


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
    channel_rank, scaled_rank = train.ranks()
    table = train.table()
    fill = None if table is None else fill_values(table)
    return FirstInput(
        source="batch",
        sample_size=train.count,
        module=train.module,
        rms=train.rms,
        largest=train.largest,
        val_rms=val.rms,
        channel_rank=channel_rank,
        scaled_rank=scaled_rank,
        fill=None if fill is None else fill.value,
        fill_channel=0 if fill is None else fill.channel,
        fill_channels=0 if fill is None else fill.channels,
        fill_share=0.0 if fill is None else fill.share,
        fill_variance=0.0 if fill is None else fill.variance,
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
                found.note(model.get_submodule(path), values)
    return found


PROBE = of_model(FirstInput, measure, mode="eval")
