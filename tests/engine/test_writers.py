"""The loggers: each gets the figures as its own package takes them, and TensorBoard the usage."""

from __future__ import annotations

from typing import Any

import pytest
from small_training import Digits, train

from vqdoctor.core.errors import UserError
from vqdoctor.engine.monitor import Monitor
from vqdoctor.engine.writers import MOST_BINS, bins_of, writer_of


class Run:
    """As wandb.Run, the module trackio and accelerate.Accelerator."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}

    def log(self, values: dict[str, Any], step: int | None = None, **_: object) -> None:
        assert step is not None
        self.rows[step] = values


class MLflow(Run):
    """As the module mlflow, which has no `log`."""

    log = None  # type: ignore[assignment]

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.rows[step] = metrics


@pytest.mark.parametrize("kind", [Run, MLflow])
def test_a_logger_gets_the_figures_of_each_interval(kind: type[Run]) -> None:
    run, logger = train(20, Digits()), kind()
    with Monitor(next(run), every=10, out=None, on_collapse=lambda event: None, writer=logger) as monitor:
        for _ in run:
            monitor.step(task_loss=2.0)
    assert list(logger.rows) == [10, 20]
    assert logger.rows[20]["vq/vq/task_loss"] == 2.0 and logger.rows[20]["vq/vq/perplexity"] >= 1


def test_what_is_no_logger_is_said() -> None:
    with pytest.raises(UserError, match="writer=int"):
        writer_of(3)


@pytest.mark.parametrize("codes", [1, 512, 513, 8192])
def test_the_bins_are_few_and_hold_everything(codes: int) -> None:
    bins = bins_of([1.0] * codes)
    assert len(bins) == min(codes, MOST_BINS) and sum(bins) == pytest.approx(1)
