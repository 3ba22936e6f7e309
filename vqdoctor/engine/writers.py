"""The loggers of a training's figures: TensorBoard, W&B, MLflow, trackio and accelerate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from vqdoctor.core.errors import UserError
from vqdoctor.core.frozen import frozen

MOST_BINS = 512
"""Bins of a histogram: the codes in their order, neighbours in one bin where there are more."""

Scalars = Callable[[dict[str, float], int], object]
"""Takes figures by their names, and the step."""
Histogram = Callable[[str, Sequence[float], int], object]
"""Takes the name, the share of each bin of codes, and the step."""


@frozen
class Writer:
    """How the figures of an interval reach a logger.

    Attributes:
        scalars: writes the figures.
        histogram: writes the usage of the codes; None where the logger has no histogram.
    """

    scalars: Scalars
    histogram: Histogram | None = None


def writer_of(logger: object) -> Writer:
    """Return how a user's logger is written to.

    A SummaryWriter of TensorBoard has `add_scalar`, mlflow `log_metrics`; the module or a run of W&B and of
    trackio, and an Accelerator with its trackers, have `log`. A `Writer` is one already.

    Raises:
        UserError: if it has none of these.
    """
    if isinstance(logger, Writer):
        return logger
    if callable(scalar := getattr(logger, "add_scalar", None)):
        raw = getattr(logger, "add_histogram_raw", None)
        return Writer(
            scalars=lambda figures, step: [scalar(name, value, step) for name, value in figures.items()],
            histogram=None if raw is None else partial(raw_histogram, raw),
        )
    log = getattr(logger, "log_metrics", None) or getattr(logger, "log", None)
    if not callable(log):
        what = f"writer={type(logger).__name__}: has none of add_scalar, log_metrics and log"
        raise UserError(what, "give a SummaryWriter, an Accelerator, or the module wandb, mlflow or trackio")
    return Writer(scalars=lambda figures, step: log(figures, step=step))


def bins_of(histogram: Sequence[float]) -> list[float]:
    """Return the share of each bin of a usage [K], at most `MOST_BINS` of them.

    >>> bins_of([1.0, 1.0, 2.0, 0.0])
    [0.25, 0.25, 0.5, 0.0]
    """
    counts = np.asarray(histogram, dtype=np.float64)
    parts = np.array_split(counts, min(len(counts), MOST_BINS))
    return [float(part.sum() / counts.sum()) for part in parts]


def raw_histogram(write: Callable[..., object], name: str, bins: Sequence[float], step: int) -> None:
    """Write a histogram over the codes, of which bin i is the interval from i to i + 1."""
    shares, places = np.asarray(bins), np.arange(len(bins)) + 0.5
    write(
        tag=name, min=0.0, max=float(len(bins)), num=float(shares.sum()), sum=float(shares @ places),
        sum_squares=float(shares @ places**2), bucket_limits=[*range(1, len(bins) + 1)],
        bucket_counts=[*bins], global_step=step,
    )  # fmt: skip
