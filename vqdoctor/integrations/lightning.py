"""The monitor as a callback of Lightning: `Trainer(callbacks=[VQMonitor()])`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

from lightning.pytorch import Callback, LightningModule, Trainer

from vqdoctor.engine.monitor import Monitor, MonitorOptions, Stopped
from vqdoctor.engine.writers import Writer, writer_of
from vqdoctor.models.task import Task


class VQMonitor(Callback):
    """Watches the VQ layers of a LightningModule once the sanity check is over: all ranks, and one reports.

    The figures go to the module's loggers as "vq/LAYER/FIGURE". A stop is the trainer's own. Findings that
    were reported are in the checkpoint, and a resumed training does not report them again.
    """

    def __init__(self, task: Task | None = None, **options: Unpack[MonitorOptions]) -> None:
        """Take the arguments of `vqdoctor.Monitor` without the model, the optimizer and the start."""
        self._task, self._options = task, options
        self._monitor: Monitor | None = None
        self._state: Mapping[str, list[str]] = {"told": []}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start watching."""
        self._monitor = Monitor(
            pl_module,
            self._task,
            optimizer=trainer.optimizers[0] if trainer.optimizers else None,
            start=trainer.global_step,
            writer=Writer(
                scalars=lambda figures, step: pl_module.log_dict(figures, on_step=True, rank_zero_only=True),
                histogram=lambda name, bins, step: _to_loggers(trainer, name, bins, step),
            ),
            **self._options,
        )
        self._monitor.load_state_dict(self._state)
        self._monitor.begin()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Tell the monitor of an optimizer step; of several batches that make one step, the last."""
        if self._monitor is not None and trainer.global_step != self._monitor.steps:
            try:
                self._monitor.step(step=trainer.global_step)
            except Stopped:
                trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop watching."""
        if self._monitor is not None:
            self._monitor.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop watching, and leave the model without hooks."""
        self.on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, list[str]]:
        """Return the memory of the monitor, for the checkpoint."""
        return dict(self._state) if self._monitor is None else self._monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, list[str]]) -> None:
        """Take it up again."""
        self._state = state_dict


def _to_loggers(trainer: Trainer, name: str, bins: Sequence[float], step: int) -> None:
    """Write a histogram to those loggers of a trainer that have one, as TensorBoard's."""
    for logger in trainer.loggers:
        if hasattr(logger.experiment, "add_histogram_raw"):
            writer = writer_of(logger.experiment)
            assert writer.histogram is not None
            writer.histogram(name, bins, step)
